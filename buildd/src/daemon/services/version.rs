//! Which daemon this is.

use std::sync::Arc;

use proto::rbuild::version_server::Version as Service;
use proto::rbuild::{LeaveRequest, LeaveResponse, VersionRequest, VersionResponse};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::daemon::builds::Builds;
use crate::daemon::parts::Parts;
use crate::version::Version;

/// Tells the daemon's version.
#[derive(Debug, Clone)]
pub(crate) struct VersionService {
    /// What the daemon is made of.
    pub parts: Arc<Parts>,
    /// Its builds.
    pub builds: Arc<Builds>,
    /// Ends it, if clients of other versions may do that.
    pub stop: Option<CancellationToken>,
}

#[tonic::async_trait]
impl Service for VersionService {
    async fn get(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        let Version { version, api } = Version::own();
        Ok(Response::new(VersionResponse {
            version,
            api,
            busy: self.builds.busy() as u32,
            pid: std::process::id(),
            root: self.parts.store.root().display().to_string(),
            snapshotter: self.parts.mounting.snapshotter().to_owned(),
            rootless: runner::overlay::in_user_namespace(),
        }))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        let Some(stop) = &self.stop else {
            return Err(Status::failed_precondition("it was not started by a client"));
        };
        // A session is a build that is about to begin.
        if self.builds.busy() > 0 || self.parts.sessions.is_used() {
            return Err(Status::failed_precondition("it is busy"));
        }
        tracing::info!("a client of another version asks for its own daemon: leaving");
        stop.cancel();
        Ok(Response::new(LeaveResponse {}))
    }
}
