//! A directory that a client sends over its session.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use cache::context::remember;
use cache::store::{CacheMountLease, Store};
use cache::tree::TreePath;
use proto::fsutil::Stat;
use rustix::fs::{Mode, OFlags, open};
use solver::{ExecError, Status, VertexContext};

use super::LocalRequest;
use crate::daemon::blocking::blocking;
use crate::fsutil::{Data, MetadataOnly, Mirror, Mirrored, Selection, Sink, TransferError};
use crate::session::{ARRIVAL, Session, SessionError, SessionManager};

/// How often progress is told, at most.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// Brings the store's copy of a client's directory up to date. Returns the copy, which is the build's alone, and the bytes
/// that came.
pub(super) async fn receive(
    sessions: &SessionManager,
    id: &str,
    store: &Store,
    request: &LocalRequest,
    cx: &VertexContext,
) -> Result<(Arc<CacheMountLease>, u64), ExecError> {
    let session = sessions.get(id, ARRIVAL).await.map_err(failed)?;
    let LocalRequest { name, hint, metadata, .. } = request;
    let kind = if metadata.is_some() { "metadata" } else { "" };
    // BuildKit's key, and the client: a key is chosen by clients, and one must not get at the files of another by listing
    // what it knows of them.
    let identity = [name, hint, session.shared_key(), kind, session.owner()];
    let copies = store.local_copies();
    let copy = copies.acquire(&identity, format!("local source for {name}")).await;
    let copy = Arc::new(copy.map_err(ExecError::failed)?);
    let told = Told::new(name, cx);
    let transfer = transfer(&session, store, request, copy.clone(), &told);
    let mirrored = tokio::select! {
        r = transfer => r?,
        () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
    };
    copy.set_size(mirrored.disk_bytes);
    let stats = store.stat_cache();
    let remembered = blocking(move || remember(&stats, &mirrored.written, &mirrored.live)).await;
    remembered.map_err(ExecError::failed)?;
    Ok((copy, told.received()))
}

async fn transfer(
    session: &Session,
    store: &Store,
    request: &LocalRequest,
    copy: Arc<CacheMountLease>,
    told: &Told<'_>,
) -> Result<Mirrored, ExecError> {
    let selection = Selection {
        include: request.include.clone(),
        exclude: request.exclude.clone(),
        follow: request.follow.clone(),
    };
    let (dir, differ) = (copy.dir().to_owned(), request.differ);
    let mirror = blocking(move || Mirror::new(&dir, differ, copy));
    let mirror = mirror.await.map_err(|e| failed(e.into()))?;
    let progress = |bytes| told.add(bytes);
    let mirror = match &request.metadata {
        None => session.diff_copy(&request.name, &selection, mirror, &progress).await,
        Some(exceptions) => {
            let sink = MetadataOnly::new(mirror, exceptions, &store.tmp()).map_err(|e| failed(e.into()))?;
            let sink = session.diff_copy(&request.name, &selection, sink, &progress).await;
            sink.map(MetadataOnly::into_mirror)
        }
    };
    Ok(mirror.map_err(failed)?.into_done())
}

fn failed(error: SessionError) -> ExecError {
    match error {
        SessionError::Lost(session) => ExecError::SessionLost { session },
        other => ExecError::failed(other),
    }
}

/// What has come so far, told now and then.
struct Told<'a> {
    name: &'a str,
    cx: &'a VertexContext,
    started: SystemTime,
    bytes: AtomicU64,
    last: Mutex<Instant>,
}

impl<'a> Told<'a> {
    fn new(name: &'a str, cx: &'a VertexContext) -> Self {
        let (started, last) = (SystemTime::now(), Mutex::new(Instant::now()));
        Self { name, cx, started, bytes: AtomicU64::new(0), last }
    }

    fn received(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < TOLD_EVERY {
            return;
        }
        *last = Instant::now();
        drop(last);
        self.cx.progress.status(Status {
            id: format!("transferring {}:", self.name),
            current: self.received(),
            total: 0,
            started: self.started,
            completed: None,
        });
    }
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
    let told = session.diff_copy(name, &Selection::default(), sink, &|_| ()).await;
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

    fn data(&mut self, id: u32, _: Data) -> Result<(), TransferError> {
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
