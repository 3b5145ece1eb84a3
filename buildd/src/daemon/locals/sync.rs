//! A directory that a client sends over its session.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use solver::{ExecError, VertexContext};

use super::LocalRequest;
use crate::fsutil::{DirWriter, Owners, Selection};
use crate::session::{SessionError, SessionManager};

/// How long a build waits for a session that has not arrived.
const ARRIVAL: Duration = Duration::from_secs(5);

/// Receives what is wanted into a new directory below `tmp`.
pub(super) async fn receive(
    sessions: &SessionManager,
    id: &str,
    tmp: &Path,
    request: &LocalRequest,
    cx: &VertexContext,
) -> Result<tempfile::TempDir, ExecError> {
    let failed = |e: SessionError| match e {
        SessionError::Lost(session) => ExecError::SessionLost { session },
        other => ExecError::failed(other),
    };
    let session = sessions.get(id, ARRIVAL).await.map_err(failed)?;
    let dir = tempfile::tempdir_in(tmp).map_err(ExecError::failed)?;
    let selection = Selection {
        include: request.include.clone(),
        exclude: request.exclude.clone(),
        follow: request.follow.clone(),
    };
    let copy = session.diff_copy(&request.name, &selection, DirWriter::new(dir.path(), Owners::Mine));
    tokio::select! {
        r = copy => r.map_err(failed)?,
        () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
    };
    Ok(dir)
}

/// Opens a directory of the daemon's own.
pub(super) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
