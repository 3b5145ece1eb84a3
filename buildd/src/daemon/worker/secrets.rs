//! Secrets, from the sessions that want the step.

use std::time::Duration;

use solver::{ExecError, Job};

use super::LocalWorker;
use crate::session::SessionError;

/// A step needs a secret that no session has.
#[derive(Debug, thiserror::Error)]
#[error("secret {id}: not found")]
struct NoSecret {
    id: String,
}

impl LocalWorker {
    /// The secret from the first session that has it; `None` when none has and it is optional.
    pub(super) async fn secret(
        &self,
        id: &str,
        optional: bool,
        job: &Job,
    ) -> Result<Option<Vec<u8>>, ExecError> {
        let mut lost = None;
        for session in job.cx.sessions.ids() {
            let found = match self.sessions.get(&session, Duration::ZERO).await {
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
}
