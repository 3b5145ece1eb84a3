//! The authorisation of requests, remembered per host.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use tokio::sync::Mutex;

use super::challenge::Challenge;
use super::endpoint::{Endpoint, Transport};
use super::token::{self, Token, TokenRequest};
use super::{Credential, Credentials, Error, TokenAsk};

/// The credentials of a build and what they have been exchanged for.
#[derive(Debug)]
pub(super) struct Auth {
    credentials: Arc<dyn Credentials>,
    hosts: Mutex<HashMap<String, Arc<Mutex<HostState>>>>,
}

/// What a host has asked for so far. Locked while a token is fetched, so each is fetched once.
#[derive(Debug, Default)]
struct HostState {
    challenge: Option<Challenge>,
    credential: Option<Option<Credential>>,
    /// A token came from whoever has the credentials.
    issued: bool,
    tokens: HashMap<String, Held>,
}

impl HostState {
    /// Whether we are somebody to the host.
    fn is_known(&self) -> bool {
        self.issued || matches!(self.credential, Some(Some(_)))
    }
}

/// A token, with the scopes that the registry asked for beyond our own.
#[derive(Debug)]
struct Held {
    token: Token,
    asked: Vec<String>,
}

impl Auth {
    pub(super) fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self { credentials, hosts: Mutex::default() }
    }

    /// The `Authorization` of a request with these scopes; none before the host has asked for any.
    pub(super) async fn header(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scopes: &[String],
    ) -> Result<Option<HeaderValue>, Error> {
        let state = self.state(endpoint).await;
        let mut state = state.lock().await;
        match state.challenge.clone() {
            None => Ok(None),
            Some(Challenge::Basic) => {
                self.credential(&mut state, endpoint).await?;
                let Some(Credential::Password { username, password }) = state.credential.clone().flatten()
                else {
                    return Ok(None);
                };
                let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
                sensitive(&format!("Basic {pair}"), endpoint).map(Some)
            }
            Some(Challenge::Bearer { .. }) => {
                let key = scopes.join(" ");
                let held = state.tokens.get(&key);
                if let Some(held) = held.filter(|held| held.token.expires > Instant::now()) {
                    return sensitive(&format!("Bearer {}", held.token.value.expose()), endpoint).map(Some);
                }
                let asked = held.map(|held| held.asked.clone()).unwrap_or_default();
                self.fetch(transport, endpoint, &mut state, scopes, asked).await?;
                let held = state.tokens.get(&key).expect("it has just been fetched");
                sensitive(&format!("Bearer {}", held.token.value.expose()), endpoint).map(Some)
            }
        }
    }

    /// Takes note of a refusal; `used` is the header that was refused. Fails when nothing else can be shown.
    pub(super) async fn challenged(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scopes: &[String],
        used: Option<&HeaderValue>,
        challenge: Option<Challenge>,
    ) -> Result<(), Error> {
        let fail = |reason: &str| {
            Err(Error::Unauthorized { host: endpoint.host.clone(), reason: reason.to_owned() })
        };
        let Some(challenge) = challenge else {
            return fail("it refuses access and names no way to get it");
        };
        let state = self.state(endpoint).await;
        let mut state = state.lock().await;
        match &challenge {
            Challenge::Basic if used.is_some() => fail("wrong user name or password"),
            Challenge::Basic => {
                self.credential(&mut state, endpoint).await?;
                if !matches!(state.credential, Some(Some(Credential::Password { .. }))) {
                    return fail("authentication required, but there is no password for it; log in first");
                }
                state.challenge = Some(challenge);
                Ok(())
            }
            Challenge::Bearer { scopes: asked, .. } => {
                let asked: Vec<String> = asked.clone();
                if let Some(held) = state.tokens.get(&scopes.join(" ")) {
                    let covered =
                        asked.iter().all(|scope| is_covered(scope, scopes) || held.asked.contains(scope));
                    let shown = format!("Bearer {}", held.token.value.expose());
                    let refused = used.is_some_and(|used| used.as_bytes() == shown.as_bytes());
                    if covered && held.token.is_fresh() && !refused {
                        // A request beside this one has fetched it meanwhile.
                        return Ok(());
                    }
                    if covered && held.token.is_fresh() {
                        return fail(if state.is_known() {
                            "the credentials do not give access, or the repository does not exist"
                        } else {
                            "authentication required, or the repository does not exist; log in first"
                        });
                    }
                }
                state.challenge = Some(challenge);
                self.fetch(transport, endpoint, &mut state, scopes, asked).await
            }
        }
    }

    async fn fetch(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        state: &mut HostState,
        scopes: &[String],
        asked: Vec<String>,
    ) -> Result<(), Error> {
        let Some(Challenge::Bearer { realm, service, .. }) = state.challenge.clone() else { return Ok(()) };
        let mut wanted = scopes.to_vec();
        for scope in asked.iter().filter(|scope| !is_covered(scope, scopes)) {
            wanted.push(scope.clone());
        }
        let ask =
            TokenAsk { host: &endpoint.host, realm: &realm, service: service.as_deref(), scopes: &wanted };
        let issued = self.credentials.token(&ask).await;
        let host = || endpoint.host.clone();
        if let Some(issued) = issued.map_err(|source| Error::Credentials { host: host(), source })? {
            state.issued = true;
            state.tokens.insert(scopes.join(" "), Held { token: Token::new(issued), asked });
            return Ok(());
        }
        self.credential(state, endpoint).await?;
        let request = TokenRequest {
            endpoint,
            realm: &realm,
            service: service.as_deref(),
            scopes: &wanted,
            credential: state.credential.as_ref().and_then(Option::as_ref),
        };
        let token = token::fetch(transport, &request).await?;
        state.tokens.insert(scopes.join(" "), Held { token, asked });
        Ok(())
    }

    /// Looks the credentials up once.
    async fn credential(&self, state: &mut HostState, endpoint: &Endpoint) -> Result<(), Error> {
        if state.credential.is_none() {
            let found = self.credentials.lookup(&endpoint.host).await;
            let host = endpoint.host.clone();
            state.credential = Some(found.map_err(|source| Error::Credentials { host, source })?);
        }
        Ok(())
    }

    async fn state(&self, endpoint: &Endpoint) -> Arc<Mutex<HostState>> {
        // Schemes are kept apart, or a token got over TLS would be sent in the clear.
        let key = format!("{}://{}", endpoint.scheme, endpoint.host);
        Arc::clone(self.hosts.lock().await.entry(key).or_default())
    }
}

/// Whether `scope` asks for no more than one of `ours` for the same repository.
fn is_covered(scope: &str, ours: &[String]) -> bool {
    let split =
        |scope: &str| scope.rsplit_once(':').map(|(name, actions)| (name.to_owned(), actions.to_owned()));
    let Some((name, actions)) = split(scope) else { return ours.iter().any(|own| own == scope) };
    ours.iter().filter_map(|own| split(own)).any(|(own_name, own_actions)| {
        own_name == name && actions.split(',').all(|action| own_actions.split(',').any(|own| own == action))
    })
}

fn sensitive(text: &str, endpoint: &Endpoint) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text).map_err(|_| Error::Unauthorized {
        host: endpoint.host.clone(),
        reason: "the credentials hold characters that cannot be sent".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_cover_scopes() {
        let ours = ["repository:a/b:pull,push".to_owned()];
        for (scope, expected) in [
            ("repository:a/b:pull", true),
            ("repository:a/b:push,pull", true),
            ("repository:a/b:delete", false),
            ("repository:a/c:pull", false),
            ("aws", false),
        ] {
            assert_eq!(is_covered(scope, &ours), expected, "{scope}");
        }
    }
}
