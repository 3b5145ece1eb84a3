//! Secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proto::secrets::secrets_server;
use proto::secrets::{GetSecretRequest, GetSecretResponse};
use tonic::{Request, Response, Status};

/// Largest secret, BuildKit's figure.
const MAX_SIZE: u64 = 500 << 10;

/// Where a secret's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// An environment variable of the client.
    Env(String),
}

/// Serves secrets by id.
#[derive(Debug)]
pub(super) struct Secrets(pub(super) BTreeMap<String, SecretSource>);

#[tonic::async_trait]
impl secrets_server::Secrets for Secrets {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let source = self.0.get(&id).ok_or_else(|| Status::not_found(format!("secret {id}: not found")))?;
        let data = match source {
            SecretSource::Env(name) => std::env::var_os(name)
                .map(|value| value.into_encoded_bytes())
                .ok_or_else(|| Status::not_found(format!("secret {id}: ${name} is not set")))?,
            SecretSource::File(path) => {
                let failed = |e| Status::unknown(format!("secret {id}: {}: {e}", path.display()));
                if tokio::fs::metadata(path).await.map_err(failed)?.len() > MAX_SIZE {
                    return Err(Status::invalid_argument(format!("secret {id}: larger than 500 KiB")));
                }
                tokio::fs::read(path).await.map_err(failed)?
            }
        };
        Ok(Response::new(GetSecretResponse { data: data.into() }))
    }
}
