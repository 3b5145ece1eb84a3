//! Which daemon this is.

use std::sync::Arc;

use proto::rbuild::version_server::Version;
use proto::rbuild::{VersionRequest, VersionResponse};
use tonic::{Request, Response, Status};

use crate::daemon::builds::Builds;
use crate::daemon::parts::Parts;

/// Raised with each change of `rbuild.proto` that an older client cannot work with.
pub(crate) const API: u32 = 1;

/// Tells the daemon's version.
#[derive(Debug, Clone)]
pub(crate) struct VersionService {
    /// What the daemon is made of.
    pub parts: Arc<Parts>,
    /// Its builds.
    pub builds: Arc<Builds>,
}

#[tonic::async_trait]
impl Version for VersionService {
    async fn get(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: API,
            busy: self.builds.busy() as u32,
            pid: std::process::id(),
            root: self.parts.store.root().display().to_string(),
            snapshotter: self.parts.mounting.snapshotter().to_owned(),
            rootless: runner::overlay::in_user_namespace(),
        }))
    }
}
