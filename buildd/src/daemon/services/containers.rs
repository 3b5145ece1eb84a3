//! Containers made of images: what `rbuild run` asks for.
//!
//! ```text
//! <root>/containers/<id>/upper     what the container writes
//!                        work      overlayfs's scratch space
//!                        root      in place of both, where overlays cannot be mounted
//!                        workdir/  a layer with the working directory, where the image has none
//!                        name      what it is called
//!                        alive     a named pipe that its monitor holds open
//! <root>/volumes/<name>/           named volumes, which stay
//! ```
//! A client on the same host hands its ends of the container over the side socket: the container then runs under a monitor of
//! its own, talks to its client directly, and outlives the daemon, which only waits for its end. Any other client's container
//! runs under the daemon's launcher, and the daemon relays. Either ends with its client. Its files go when it ends, as no call
//! could reach them afterwards. While it runs the named lease `container/<id>` keeps its image's layers.

mod alive;
mod earlier;
mod files;
mod plan;
mod start;

use std::sync::Arc;

use proto::rbuild::containers_server::Containers;
use proto::rbuild::run_request::Request as Asked;
use proto::rbuild::{RunRequest, RunResponse};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status, Streaming};

use crate::daemon::builds::Builds;
use crate::daemon::parts::Parts;
use crate::daemon::peer::Peer;

pub(crate) use earlier::take_up;

/// Messages that wait for the transport before the container's output does.
const BACKLOG: usize = 16;

/// What a container is listed under: no two that run have the same name.
fn reference(name: &str) -> String {
    format!("container-{name}")
}

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
        self.builds.admit()?;
        let is_far = request.extensions().get::<UdsConnectInfo>().is_none();
        let far = is_far.then(|| self.parts.entitlements_of(&Peer::of(request.extensions())));
        let mut requests = request.into_inner();
        let Some(RunRequest { request: Some(Asked::Start(start)) }) = requests.message().await? else {
            return Err(Status::invalid_argument("the first request has to be `start`"));
        };
        let container = start::Container::begin(&self.parts, &self.builds, start, far)?;
        let (tx, rx) = tokio::sync::mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            if let Err(status) = container.run(requests, tx.clone()).await {
                let _ = tx.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }
}
