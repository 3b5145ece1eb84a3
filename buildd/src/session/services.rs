//! Calls that bring something from the client: files, credentials, secrets, its SSH agent, its stdin.

use bytes::Bytes;
use proto::filesync::auth_client::AuthClient;
use proto::filesync::file_sync_client::FileSyncClient;
use proto::filesync::{
    CredentialsRequest, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    VerifyTokenAuthorityRequest,
};
use proto::policysession::policy_verifier_client::PolicyVerifierClient;
use proto::policysession::{CheckPolicyRequest, CheckPolicyResponse};
use proto::secrets::GetSecretRequest;
use proto::secrets::secrets_client::SecretsClient;
use proto::sshforward::CheckAgentRequest;
use proto::sshforward::ssh_client::SshClient;
use proto::upload::upload_client::UploadClient;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request};

use super::call::{MAX_MESSAGE, add_header, lazy};
use super::{Session, SessionError};
use crate::fsutil::{Selection, Sink, receive, replies};
use crate::pipe::{BytePipe, outgoing};

/// What a registry wants to know of a user.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Empty: `secret` is an identity token.
    pub username: String,
    /// Password or token.
    pub secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Session {
    /// Receives the local source `name`; `progress` is told of bytes as they arrive.
    ///
    /// # Errors
    /// The client has no such source or went away; what `sink` says.
    pub async fn diff_copy<S: Sink>(
        &self,
        name: &str,
        selection: &Selection,
        sink: S,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<S, SessionError> {
        self.require("/moby.filesync.v1.FileSync/DiffCopy")?;
        let mut metadata = MetadataMap::new();
        add_header(&mut metadata, "dir-name", &[name.to_owned()])?;
        add_header(&mut metadata, "include-patterns", &selection.include)?;
        add_header(&mut metadata, "exclude-patterns", &selection.exclude)?;
        add_header(&mut metadata, "followpaths", &selection.follow)?;
        let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
        let request = Request::from_parts(metadata, Extensions::default(), replies(rx));
        let mut client = FileSyncClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        let incoming = lazy(async move { client.diff_copy(request).await });
        self.live(receive(sink, incoming, tx, progress)).await
    }

    /// The user's credentials for a registry host; `None` when there are none.
    ///
    /// # Errors
    /// The client could not get them, for instance from a credential helper, or went away.
    pub async fn credentials(&self, host: &str) -> Result<Option<Credentials>, SessionError> {
        if !self.supports("/moby.filesync.v1.Auth/Credentials") {
            return Ok(None);
        }
        let mut client = AuthClient::new(self.channel());
        let answer = self.live(client.credentials(CredentialsRequest { host: host.to_owned() })).await?;
        let answer = answer.into_inner();
        let found = !answer.secret.is_empty();
        Ok(found.then_some(Credentials { username: answer.username, secret: answer.secret }))
    }

    /// The public key (Ed25519) that stands for the client's credentials for a registry, under a salt of ours.
    /// `None` when it fetches no tokens.
    ///
    /// # Errors
    /// The client could not look its credentials up or went away.
    pub async fn token_authority(&self, host: &str, salt: &[u8]) -> Result<Option<[u8; 32]>, SessionError> {
        if !self.supports("/moby.filesync.v1.Auth/GetTokenAuthority") {
            return Ok(None);
        }
        let mut client = AuthClient::new(self.channel());
        let request = GetTokenAuthorityRequest { host: host.to_owned(), salt: salt.to_vec().into() };
        match self.live(client.get_token_authority(request)).await {
            Ok(answer) => Ok(answer.into_inner().public_key.as_ref().try_into().ok()),
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the client makes of `payload` with the key behind [`Self::token_authority`]: a signature, and the payload.
    ///
    /// # Errors
    /// The client does not do that, could not do it, or went away.
    pub async fn sign(&self, host: &str, salt: &[u8], payload: &[u8]) -> Result<Bytes, SessionError> {
        self.require("/moby.filesync.v1.Auth/VerifyTokenAuthority")?;
        let mut client = AuthClient::new(self.channel());
        let request = VerifyTokenAuthorityRequest {
            host: host.to_owned(),
            payload: payload.to_vec().into(),
            salt: salt.to_vec().into(),
        };
        Ok(self.live(client.verify_token_authority(request)).await?.into_inner().signed)
    }

    /// Lets the client decide on a source.
    ///
    /// # Errors
    /// The client does not do that, could not do it, or went away.
    pub async fn check_policy(
        &self,
        request: CheckPolicyRequest,
    ) -> Result<CheckPolicyResponse, SessionError> {
        self.require("/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy")?;
        let mut client = PolicyVerifierClient::new(self.channel()).max_encoding_message_size(MAX_MESSAGE);
        Ok(self.live(client.check_policy(request)).await?.into_inner())
    }

    /// Lets the client fetch a registry token, so that its password stays with it.
    ///
    /// # Errors
    /// The client does not do that, could not do it, or went away.
    pub async fn fetch_token(&self, request: FetchTokenRequest) -> Result<FetchTokenResponse, SessionError> {
        self.require("/moby.filesync.v1.Auth/FetchToken")?;
        let mut client = AuthClient::new(self.channel());
        Ok(self.live(client.fetch_token(request)).await?.into_inner())
    }

    /// The secret `id`; `None` when the client has none of that id.
    ///
    /// # Errors
    /// The client could not read it or went away.
    pub async fn secret(&self, id: &str) -> Result<Option<Bytes>, SessionError> {
        if !self.supports("/moby.buildkit.secrets.v1.Secrets/GetSecret") {
            return Ok(None);
        }
        let mut client = SecretsClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        let request = GetSecretRequest { id: id.to_owned(), ..GetSecretRequest::default() };
        match self.live(client.get_secret(request)).await {
            Ok(answer) => Ok(Some(answer.into_inner().data)),
            Err(SessionError::Client(status))
                if matches!(status.code(), Code::NotFound | Code::Unimplemented) =>
            {
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    /// Whether the client forwards an SSH agent of that id.
    ///
    /// # Errors
    /// The client went away.
    pub async fn has_ssh(&self, id: &str) -> Result<bool, SessionError> {
        if !self.supports("/moby.sshforward.v1.SSH/CheckAgent") {
            return Ok(false);
        }
        let mut client = SshClient::new(self.channel());
        match self.live(client.check_agent(CheckAgentRequest { id: id.to_owned() })).await {
            Ok(_) => Ok(true),
            Err(SessionError::Client(_)) => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// A connection to the client's SSH agent `id`. It is made with the first read.
    ///
    /// # Errors
    /// The client forwards none.
    pub fn ssh(&self, id: &str) -> Result<BytePipe<proto::sshforward::BytesMessage>, SessionError> {
        self.require("/moby.sshforward.v1.SSH/ForwardAgent")?;
        let mut metadata = MetadataMap::new();
        add_header(&mut metadata, "buildkit.ssh.id", &[id.to_owned()])?;
        let (tx, rx) = outgoing();
        let request = Request::from_parts(metadata, Extensions::default(), rx);
        let mut client = SshClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        Ok(BytePipe::new(lazy(async move { client.forward_agent(request).await }), tx))
    }

    /// Reads what the client offers at `http://buildkit-session/PATH`, such as a tar context from its stdin.
    ///
    /// # Errors
    /// The client offers nothing.
    pub fn upload(
        &self,
        host: &str,
        path: &str,
    ) -> Result<BytePipe<proto::upload::BytesMessage>, SessionError> {
        self.require("/moby.upload.v1.Upload/Pull")?;
        let mut metadata = MetadataMap::new();
        add_header(&mut metadata, "urlhost", &[host.to_owned()])?;
        add_header(&mut metadata, "urlpath", &[path.to_owned()])?;
        let (tx, rx) = outgoing();
        let request = Request::from_parts(metadata, Extensions::default(), rx);
        let mut client = UploadClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        Ok(BytePipe::new(lazy(async move { client.pull(request).await }), tx))
    }
}
