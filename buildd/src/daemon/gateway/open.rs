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

/// Closes a bridge when dropped.
struct Closing<'a> {
    gateways: &'a Gateways,
    bridge: &'a Bridge,
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

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.gateways.lock().remove(&self.bridge.run.reference);
        // Where the build was cancelled; otherwise none is left.
        self.bridge.containers.kill_all();
    }
}

/// Opens a bridge for a build and waits for what its client returns.
///
/// # Errors
/// The error that the client returned; a step of the result that failed; cancellation.
pub(in crate::daemon) async fn returned(
    parts: &Arc<Parts>,
    run: &Arc<Run>,
    request: &SolveRequest,
) -> Result<Results, Failure> {
    let inputs = parts.requests.of(&request.frontend_inputs);
    let root = Origin::asked("", request.frontend_attrs.clone(), inputs, None);
    let bridge =
        Arc::new(Bridge::new(parts, run, request.frontend_inputs.clone(), Arc::default(), Arc::new(root)));
    parts.gateways.lock().insert(run.reference.clone(), bridge.clone());
    parts.gateways.opened.notify_waiters();
    let _closing = Closing { gateways: &parts.gateways, bridge: &bridge };
    let result = bridge.result().await;
    bridge.containers.release_all().await;
    result
}
