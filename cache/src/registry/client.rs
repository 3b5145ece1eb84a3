//! The handles that others hold: one for the process, one for a build.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::auth::Auth;
use super::endpoint::Transport;
use super::token::{self, TokenRequest};
use super::{Credential, Credentials, Error, HostConfig, IssuedToken, ProgressFn, TokenAsk, Tuning};

/// All registries as configured, with their connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registries {
    transport: Arc<Transport>,
}

impl Registries {
    /// Registries under the configuration of some hosts, keyed by host with port; `docker.io` for Docker Hub.
    pub fn new(hosts: BTreeMap<String, HostConfig>, tuning: Tuning) -> Self {
        Self { transport: Arc::new(Transport::new(hosts, tuning)) }
    }

    /// The same, but for hosts that need not prove who they are, and may speak without TLS.
    #[must_use]
    pub fn with_insecure<'a>(&self, hosts: impl IntoIterator<Item = &'a str>) -> Self {
        let transport = &self.transport;
        let mut configured = transport.hosts.clone();
        for host in hosts {
            let config = configured.entry(host.to_owned()).or_default();
            (config.insecure, config.http) = (true, Some(true));
        }
        Self::new(configured, transport.tuning)
    }

    /// A client that shows these credentials. Its tokens are its own.
    pub fn client(&self, credentials: Arc<dyn Credentials>) -> Client {
        let auth = Arc::new(Auth::new(credentials));
        Client { transport: Arc::clone(&self.transport), auth, progress: None }
    }
}

impl Registries {
    /// Fetches a token with one's own credentials, for somebody who is not to have them.
    ///
    /// None when the credentials may not go to that token server: see [`HostConfig::token_hosts`].
    ///
    /// # Errors
    /// The token server refuses, cannot be reached, or answers nonsense.
    pub async fn fetch_token(
        &self,
        ask: &TokenAsk<'_>,
        credential: &Credential,
    ) -> Result<Option<IssuedToken>, Error> {
        let Some(endpoint) = self.transport.for_push(ask.host)?.into_iter().next() else { return Ok(None) };
        let request = TokenRequest {
            endpoint: &endpoint,
            realm: ask.realm,
            service: ask.service,
            scopes: ask.scopes,
            credential: Some(credential),
        };
        if !token::may_have_credentials(&self.transport, &request) {
            return Ok(None);
        }
        let token = token::fetch(&self.transport, &request).await?;
        let valid = token.expires.saturating_duration_since(Instant::now());
        Ok(Some(IssuedToken { token: token.value, valid }))
    }
}

/// Pulls and pushes on behalf of one build. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(super) transport: Arc<Transport>,
    pub(super) auth: Arc<Auth>,
    pub(super) progress: Option<ProgressFn>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("auth", &self.auth).finish_non_exhaustive()
    }
}

impl Client {
    /// The same client, reporting bytes of blobs to `progress`.
    #[must_use]
    pub fn with_progress(&self, progress: ProgressFn) -> Self {
        Self { progress: Some(progress), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, Platform, Reference};
    use crate::registry::{Anonymous, NoCache};

    #[test]
    fn requests_can_be_spawned() {
        fn is_send<T: Send>(_: &T) {}
        let client = Registries::new(BTreeMap::new(), Tuning::default()).client(Arc::new(Anonymous));
        let (reference, platform) = (Reference::parse("localhost/a").expect("a name"), Platform::host());
        let descriptor = Descriptor::of("x", b"");
        is_send(&client.resolve(&reference, &platform, &NoCache));
        is_send(&client.push_blob(&reference, &descriptor, None, Arc::new(bytes::Bytes::new())));
        is_send(&client.push_manifest(&reference, "x", b""));
        is_send(&client.mount_blob(&reference, &descriptor.digest, "b"));
        is_send(&client.fetch_blob(&reference, &descriptor).expect("a host name").into_stream());
    }
}
