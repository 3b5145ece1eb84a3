//! What a build may do, checked before anything of it runs or joins another build's run.

use solver::op::{NetMode, SecurityMode};
use solver::{ExecError, Graph, Op};
use tonic::Code;

use crate::daemon::failure::Failure;
use crate::daemon::run::Run;

/// The entitlement for the host's network.
pub(crate) const NETWORK_HOST: &str = "network.host";
/// The entitlement for privileged steps.
pub(super) const SECURITY_INSECURE: &str = "security.insecure";

/// Checks every exec of a graph against what the build was granted, and puts the devices that it gets in place of what it
/// calls them.
///
/// # Errors
/// The first exec that needs more, with the name of what it needs.
pub(crate) fn check(graph: &mut Graph, run: &Run) -> Result<(), Failure> {
    for id in graph.ids() {
        let Op::Exec(op) = &graph.vertex(id).op else { continue };
        let denied = |error: ExecError| Failure {
            code: Code::PermissionDenied,
            ..Failure::of_graph(graph, Some(id), &error)
        };
        let wants = [
            (op.network == NetMode::Host, NETWORK_HOST),
            (op.security == SecurityMode::Insecure, SECURITY_INSECURE),
        ];
        for (wanted, name) in wants {
            if wanted && !run.entitlements.contains(name) {
                return Err(denied(ExecError::failed(NotAllowed { name })));
            }
        }
        if op.cdi_devices.is_empty() {
            continue;
        }
        let devices = run.entitlements.devices(&op.cdi_devices);
        let devices = devices.map_err(|error| denied(ExecError::failed(error)))?;
        if let Op::Exec(op) = graph.op_mut(id) {
            op.cdi_devices = devices;
        }
    }
    Ok(())
}

/// An entitlement is missing.
#[derive(Debug, thiserror::Error)]
#[error("{name} is not allowed")]
struct NotAllowed {
    name: &'static str,
}
