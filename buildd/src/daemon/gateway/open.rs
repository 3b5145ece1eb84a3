//! The bridges that are open, by the refs of their builds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::control::SolveRequest;
use tokio::sync::Notify;

use super::Bridge;
use crate::daemon::export::Results;
use crate::daemon::failure::Failure;
use crate::daemon::parts::Parts;
use crate::daemon::provenance::Origin;
use crate::daemon::run::Run;

/// How long a call waits for its build: the client may make both at the same time.
const ARRIVAL: Duration = Duration::from_secs(3);

/// All open bridges.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Gateways {
    open: Mutex<HashMap<String, Arc<Bridge>>>,
    opened: Notify,
}

/// The bridge of a build whose client is its own frontend; closed when dropped.
#[derive(Debug)]
pub(in crate::daemon) struct Open<'a> {
    gateways: &'a Gateways,
    bridge: Arc<Bridge>,
}

impl Gateways {
    /// The bridge of a build, waiting a little for one that is not open yet.
    pub(super) async fn get(&self, build: &str) -> Option<Arc<Bridge>> {
        let search = async {
            loop {
                // Made before the look, so that no bridge opens unnoticed in between.
                let opened = self.opened.notified();
                if let Some(bridge) = self.lock().get(build) {
                    return bridge.clone();
                }
                opened.await;
            }
        };
        tokio::time::timeout(ARRIVAL, search).await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Bridge>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.gateways.lock().remove(&self.bridge.run.reference);
        // Where the build was cancelled; otherwise none is left.
        self.bridge.containers.kill_all();
    }
}

impl<'a> Open<'a> {
    /// Opens a bridge for a build.
    pub(in crate::daemon) fn new(parts: &'a Arc<Parts>, run: &Arc<Run>, request: &SolveRequest) -> Self {
        let inputs = parts.requests.of(&request.frontend_inputs);
        let root = Arc::new(Origin::asked("", request.frontend_attrs.clone(), inputs, None));
        let inputs = request.frontend_inputs.clone();
        let bridge = Arc::new(Bridge::new(parts, run, inputs, Arc::default(), root));
        parts.gateways.lock().insert(run.reference.clone(), bridge.clone());
        parts.gateways.opened.notify_waiters();
        Self { gateways: &parts.gateways, bridge }
    }

    /// Waits for what the client returns.
    ///
    /// # Errors
    /// The error that the client returned; a step of the result that failed; cancellation.
    pub(in crate::daemon) async fn result(&self) -> Result<Results, Failure> {
        let result = self.bridge.result().await;
        self.bridge.containers.release_all().await;
        result
    }

    /// The ids by which the client can look into what it returned.
    pub(in crate::daemon) fn ids(&self) -> Vec<String> {
        let returned = self.bridge.returned().and_then(Result::ok);
        let parts = returned.into_iter().flat_map(|returned| returned.parts);
        parts.filter_map(|part| self.bridge.id_of(&part.reference?)).collect()
    }
}
