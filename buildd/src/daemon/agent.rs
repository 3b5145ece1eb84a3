//! SSH agents: a socket whose bytes go to the client's agent and back.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use solver::op::SshMount;
use solver::{ExecError, VertexContext};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::session::{ARRIVAL, Session, SessionError, SessionManager};

/// The agent that no id names.
const DEFAULT_ID: &str = "default";

/// A socket that reaches a client's agent until it is dropped.
#[derive(Debug)]
pub(super) struct AgentSocket {
    path: PathBuf,
    serving: JoinHandle<()>,
}

/// A step needs an agent that no session forwards.
#[derive(Debug, thiserror::Error)]
#[error("unset ssh forward key {id} (hint: --ssh {id})")]
struct NoAgent {
    id: String,
}

impl AgentSocket {
    /// A socket at `path` for the agent; `None` when no session forwards it and it is optional.
    ///
    /// # Errors
    /// No session forwards it and it is not optional; a session went away.
    pub(super) async fn open(
        sessions: &SessionManager,
        mount: &SshMount,
        path: PathBuf,
        cx: &VertexContext,
    ) -> Result<Option<Self>, ExecError> {
        for id in cx.sessions.ids() {
            let Ok(session) = sessions.get(&id, ARRIVAL).await else { continue };
            let has = session.has_ssh(&mount.id).await.map_err(|error| match error {
                SessionError::Lost(_) => ExecError::SessionLost { session: id.clone() },
                other => ExecError::failed(other),
            })?;
            if has {
                return Self::serve(session, mount, path).map(Some).map_err(ExecError::failed);
            }
        }
        let id = if mount.id.is_empty() { DEFAULT_ID } else { &mount.id };
        match mount.optional {
            true => Ok(None),
            false => Err(ExecError::failed(NoAgent { id: id.to_owned() })),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn serve(session: Session, mount: &SshMount, path: PathBuf) -> std::io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mount.mode))?;
        chown(&path, Some(mount.uid), Some(mount.gid))?;
        let id = mount.id.clone();
        let serving = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let agent = session.ssh(&id);
                tokio::spawn(async move {
                    match agent {
                        Ok(mut agent) => drop(tokio::io::copy_bidirectional(&mut client, &mut agent).await),
                        Err(e) => tracing::debug!("SSH agent: {e}"),
                    }
                });
            }
        });
        Ok(Self { path, serving })
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
