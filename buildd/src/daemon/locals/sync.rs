//! A directory that a client sends over its session.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cache::tree::TreePath;
use proto::fsutil::Stat;
use rustix::fs::{Mode, OFlags, open};
use solver::{ExecError, VertexContext};

use super::LocalRequest;
use crate::fsutil::{DirWriter, Owners, Selection, Sink, TransferError};
use crate::session::{ARRIVAL, SessionError, SessionManager};

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

/// Asks a client for the paths in a directory, and for no data.
pub(super) async fn names(
    sessions: &SessionManager,
    id: &str,
    name: &str,
    limit: usize,
) -> Result<Vec<TreePath>, SessionError> {
    let session = sessions.get(id, ARRIVAL).await?;
    let names = Arc::new(Mutex::new(Vec::new()));
    let sink = Names { names: names.clone(), limit };
    let told = session.diff_copy(name, &Selection::default(), sink).await;
    let names = std::mem::take(&mut *names.lock().unwrap_or_else(PoisonError::into_inner));
    // Enough is told by an error, too.
    match told {
        Err(error) if names.is_empty() => Err(error),
        _ => Ok(names),
    }
}

/// Takes the paths of a transfer; ends it when there are enough.
struct Names {
    names: Arc<Mutex<Vec<TreePath>>>,
    limit: usize,
}

impl Sink for Names {
    fn entry(&mut self, _: u32, stat: Stat) -> Result<bool, TransferError> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() == self.limit {
            return Err(TransferError::Cancelled);
        }
        names.extend(TreePath::clean(stat.path.as_bytes()));
        Ok(false)
    }

    fn data(&mut self, id: u32, _: Bytes) -> Result<(), TransferError> {
        Err(TransferError::Id(id))
    }

    fn end(&mut self, id: u32) -> Result<(), TransferError> {
        Err(TransferError::Id(id))
    }
}

/// Opens a directory of the daemon's own.
pub(super) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
