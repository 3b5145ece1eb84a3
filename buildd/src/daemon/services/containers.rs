//! Containers made of images: what `rbuild run` asks for.
//!
//! ```text
//! <root>/containers/<id>/upper     what the container writes
//!                        work      overlayfs's scratch space
//!                        root      in place of both, where overlays cannot be mounted
//!                        workdir/  a layer with the working directory, where the image has none
//! <root>/volumes/<name>/           named volumes, which stay
//! ```
//! A container runs under the daemon's launcher and ends with its client's call. Its files go when it ends, as no call
//! could reach them afterwards. While it runs the named lease `container/<id>` keeps its image's layers.

mod files;
mod plan;
mod relay;
mod start;
mod streams;

use std::sync::Arc;

use proto::rbuild::containers_server::Containers;
use proto::rbuild::run_request::Request as Asked;
use proto::rbuild::{RunRequest, RunResponse};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::daemon::builds::Builds;
use crate::daemon::parts::Parts;

pub(crate) use files::clear_stale;

/// Messages that wait for the transport before the container's output does.
const BACKLOG: usize = 16;

/// Runs containers.
#[derive(Debug, Clone)]
pub(crate) struct ContainersService {
    /// What the daemon is made of.
    pub parts: Arc<Parts>,
    /// Where running containers are listed.
    pub builds: Arc<Builds>,
}

#[tonic::async_trait]
impl Containers for ContainersService {
    type RunStream = ReceiverStream<Result<RunResponse, Status>>;

    async fn run(
        &self,
        request: Request<Streaming<RunRequest>>,
    ) -> Result<Response<Self::RunStream>, Status> {
        let mut requests = request.into_inner();
        let Some(RunRequest { request: Some(Asked::Start(start)) }) = requests.message().await? else {
            return Err(Status::invalid_argument("the first request has to be `start`"));
        };
        let container = start::Container::begin(&self.parts, &self.builds, start)?;
        let (tx, rx) = tokio::sync::mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            if let Err(status) = container.run(requests, &tx).await {
                let _ = tx.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }
}
