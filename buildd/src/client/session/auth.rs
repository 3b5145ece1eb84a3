//! Registry credentials from the user's docker configuration and its helpers.

use docker_credential::{CredentialRetrievalError, DockerCredential};
use proto::filesync::auth_server;
use proto::filesync::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use tonic::{Request, Response, Status};

/// Answers from `~/.docker/config.json`, or `$DOCKER_CONFIG`.
#[derive(Debug)]
pub(super) struct Auth;

/// The key under which docker files credentials for Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

#[tonic::async_trait]
impl auth_server::Auth for Auth {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        // Helpers are programs that are waited for.
        let found = tokio::task::spawn_blocking(move || lookup(&host))
            .await
            .map_err(|_| Status::cancelled("the client is shutting down"))??;
        Ok(Response::new(found.unwrap_or_default()))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("the daemon fetches tokens"))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("the daemon fetches tokens"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("the daemon fetches tokens"))
    }
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
