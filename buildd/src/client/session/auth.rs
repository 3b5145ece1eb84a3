//! Registry credentials from the user's docker configuration and its helpers.
//!
//! Where a registry has a token server the daemon gets tokens only, and the credentials stay here.

use cache::registry::{Credential, Registries, TokenAsk, Tuning};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use proto::filesync::auth_server;
use proto::filesync::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tonic::{Request, Response, Status};

use super::seeds;

/// Answers from `~/.docker/config.json`, or `$DOCKER_CONFIG`.
#[derive(Debug)]
pub(super) struct Auth;

/// The key under which docker files credentials for Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Set, it keeps clients of BuildKit from fetching tokens.
const NO_TOKENS: &str = "BUILDKIT_NO_CLIENT_TOKEN";

#[tonic::async_trait]
impl auth_server::Auth for Auth {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let found = blocking(move || lookup(&request.into_inner().host)).await?;
        Ok(Response::new(found.unwrap_or_default()))
    }

    async fn fetch_token(
        &self,
        request: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        let FetchTokenRequest { host, realm, service, scopes, .. } = request.into_inner();
        let credential = {
            let host = host.clone();
            blocking(move || lookup(&host)).await?
        };
        let credential = credential.and_then(|c| Credential::from_pair(&c.username, &c.secret));
        let credential = credential.ok_or_else(|| no_tokens(&host))?;
        let service = Some(service.as_str()).filter(|s| !s.is_empty());
        let ask = TokenAsk { host: &host, realm: &realm, service, scopes: &scopes };
        let registries = Registries::new(std::collections::BTreeMap::new(), Tuning::default());
        let issued = registries.fetch_token(&ask, &credential).await;
        // The daemon may know better than we do whether it can trust that token server.
        let issued = issued.map_err(|e| Status::unknown(e.to_string()))?.ok_or_else(|| no_tokens(&host))?;
        Ok(Response::new(FetchTokenResponse {
            token: issued.token.expose().to_owned(),
            expires_in: issued.valid.as_secs().try_into().unwrap_or(i64::MAX),
            issued_at: 0,
        }))
    }

    async fn get_token_authority(
        &self,
        request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        let GetTokenAuthorityRequest { host, salt } = request.into_inner();
        let pair = blocking(move || authority(&host, &salt)).await?;
        let public_key = pair.public_key().as_ref().to_vec().into();
        Ok(Response::new(GetTokenAuthorityResponse { public_key }))
    }

    async fn verify_token_authority(
        &self,
        request: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        let VerifyTokenAuthorityRequest { host, payload, salt } = request.into_inner();
        let pair = blocking(move || authority(&host, &salt)).await?;
        let signed = [pair.sign(&payload).as_ref(), &payload].concat().into();
        Ok(Response::new(VerifyTokenAuthorityResponse { signed }))
    }
}

/// Helpers are programs that are waited for.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::cancelled("the client is shutting down"))?
}

/// The key pair that stands for the credentials for `host` under a daemon's salt.
fn authority(host: &str, salt: &[u8]) -> Result<Ed25519KeyPair, Status> {
    let off = std::env::var(NO_TOKENS).is_ok_and(|v| matches!(v.as_str(), "1" | "t" | "T" | "true" | "TRUE"));
    let found = if off { None } else { lookup(host)? };
    let credentials = found.ok_or_else(|| no_tokens(host))?;
    let failed = |what: &str| Status::unknown(format!("token authority of `{host}`: {what}"));
    let seed = seeds::of(host).map_err(|e| failed(&e.to_string()))?;
    let mut sum = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, salt));
    sum.update(&seed);
    // BuildKit's clients leave them out: theirs share tokens even after the password changed.
    sum.update(credentials.username.as_bytes());
    sum.update(&[0]);
    sum.update(credentials.secret.as_bytes());
    Ed25519KeyPair::from_seed_unchecked(sum.sign().as_ref()).map_err(|e| failed(&e.to_string()))
}

/// Tells the daemon to do it itself.
fn no_tokens(host: &str) -> Status {
    Status::unavailable(format!("this client fetches no tokens for `{host}`"))
}

fn lookup(host: &str) -> Result<Option<CredentialsResponse>, Status> {
    let key = match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB_KEY,
        other => other,
    };
    match docker_credential::get_credential(key) {
        Ok(DockerCredential::IdentityToken(secret)) => {
            Ok(Some(CredentialsResponse { username: String::new(), secret }))
        }
        Ok(DockerCredential::UsernamePassword(username, secret)) => {
            Ok(Some(CredentialsResponse { username, secret }))
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) if !is_not_found(&stdout) => {
            let text = if stderr.trim().is_empty() { stdout } else { stderr };
            Err(Status::unknown(format!("credential helper `{helper}` failed for `{host}`: {}", text.trim())))
        }
        Err(CredentialRetrievalError::ConfigReadError) => {
            // There is none, or it cannot be read, which docker treats alike.
            Ok(None)
        }
        Err(_) => Ok(None),
    }
}

/// What helpers say, on stdout, when they know nothing of a host.
fn is_not_found(stdout: &str) -> bool {
    stdout.contains("credentials not found")
}
