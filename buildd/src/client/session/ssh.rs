//! Forwarding of SSH agents.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use proto::sshforward::ssh_server;
use proto::sshforward::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use tokio::net::UnixStream;
use tonic::{Request, Response, Status, Streaming};

use crate::pipe::{BytePipe, outgoing};

/// The id of the agent that no id names.
const DEFAULT_ID: &str = "default";

/// Where an agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSource {
    /// Its socket.
    pub socket: PathBuf,
}

/// Serves agents by id.
#[derive(Debug)]
pub(super) struct Ssh(pub(super) BTreeMap<String, SshSource>);

impl Ssh {
    fn source(&self, id: &str) -> Result<&SshSource, Status> {
        let id = if id.is_empty() { DEFAULT_ID } else { id };
        self.0.get(id).ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))
    }
}

#[tonic::async_trait]
impl ssh_server::Ssh for Ssh {
    type ForwardAgentStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.source(&request.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let id = metadata.get("buildkit.ssh.id").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let socket = &self.source(id)?.socket;
        let mut agent = UnixStream::connect(socket)
            .await
            .map_err(|e| Status::unknown(format!("ssh agent `{}`: {e}", socket.display())))?;
        let (tx, rx) = outgoing();
        let mut pipe = BytePipe::new(incoming, tx);
        tokio::spawn(async move {
            // Either end may hang up at any time.
            let _ = tokio::io::copy_bidirectional(&mut agent, &mut pipe).await;
        });
        Ok(Response::new(rx.map(Ok).boxed()))
    }
}
