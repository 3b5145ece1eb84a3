//! What a build may do, checked before anything of it runs or joins another build's run.

use solver::op::{NetMode, SecurityMode};
use solver::{ExecError, Graph, Op, VertexId};
use tonic::Code;

use crate::daemon::failure::Failure;
use crate::daemon::run::Run;

/// The entitlement for the host's network.
pub(crate) const NETWORK_HOST: &str = "network.host";
/// The entitlement for privileged steps.
pub(super) const SECURITY_INSECURE: &str = "security.insecure";

/// Checks every exec of a graph against what the build was granted.
///
/// # Errors
/// The first exec that needs more, with the name of what it needs.
pub(crate) fn check(graph: &Graph, run: &Run) -> Result<(), Failure> {
    for (i, vertex) in graph.vertices().iter().enumerate() {
        let Op::Exec(op) = &vertex.op else { continue };
        let wants = [
            (op.network == NetMode::Host, NETWORK_HOST),
            (op.security == SecurityMode::Insecure, SECURITY_INSECURE),
        ];
        for (wanted, name) in wants {
            if wanted && !run.entitlements.contains(name) {
                let (vertex, error) = (VertexId(i as u32), ExecError::failed(NotAllowed { name }));
                return Err(Failure {
                    code: Code::PermissionDenied,
                    ..Failure::of_graph(graph, Some(vertex), &error)
                });
            }
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
