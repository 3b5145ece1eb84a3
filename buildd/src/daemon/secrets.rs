//! Secrets, from the sessions that want a vertex.

use solver::{ExecError, VertexContext};

use crate::session::{ARRIVAL, SessionError, SessionManager};

/// A step needs a secret that no session has.
#[derive(Debug, thiserror::Error)]
#[error("secret {id}: not found")]
struct NoSecret {
    id: String,
}

/// The secret from the first session that has it; `None` when none has and it is optional.
///
/// # Errors
/// No session has it and it is not optional; a session went away, or its client cannot read it.
pub(super) async fn secret(
    sessions: &SessionManager,
    id: &str,
    optional: bool,
    cx: &VertexContext,
) -> Result<Option<Vec<u8>>, ExecError> {
    let mut lost = None;
    for session in cx.sessions.ids() {
        let found = match sessions.get(&session, ARRIVAL).await {
            Ok(s) => s.secret(id).await,
            Err(e) => Err(e),
        };
        match found {
            Ok(Some(data)) => return Ok(Some(data.to_vec())),
            Ok(None) => {}
            Err(SessionError::Lost(_) | SessionError::Unknown(_)) => {
                lost = Some(ExecError::SessionLost { session })
            }
            Err(e) => return Err(ExecError::failed(e)),
        }
    }
    match lost {
        Some(e) => Err(e),
        None if optional => Ok(None),
        None => Err(ExecError::failed(NoSecret { id: id.to_owned() })),
    }
}
