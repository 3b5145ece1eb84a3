//! Directories of sessions: passed as descriptors, or synchronised over the session.

mod identity;
mod request;
mod sync;

use std::collections::HashMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::context::{Context, ThreadInit, WalkRequest, names, walk};
use cache::store::{CacheMountLease, Store};
use cache::tree::{TreePath, Trees};
use solver::pattern::PatternMatcher;
use solver::{ExecError, LocalRef, VertexContext};

use super::blocking::blocking;
use super::side::{Passed, PassedDir};
use super::worker::SetOnDrop;
use crate::session::{Session, SessionManager};
pub(super) use request::LocalRequest;

/// The name of the directory that is built.
const MAIN: &str = "context";

/// The directories that builds copy from.
#[derive(Debug)]
pub(super) struct Locals {
    store: Store,
    trees: Arc<Trees>,
    passed: Arc<Passed>,
    sessions: Arc<SessionManager>,
    walked: Mutex<HashMap<u64, Walked>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Walked {
    build: String,
    context: Context,
    /// The copy that it is of, if it did not come as a descriptor.
    _copy: Option<Arc<CacheMountLease>>,
}

impl Locals {
    /// No directories yet.
    pub(super) fn new(
        store: Store,
        trees: Arc<Trees>,
        passed: Arc<Passed>,
        sessions: Arc<SessionManager>,
    ) -> Self {
        Self { store, trees, passed, sessions, walked: Mutex::default(), next: AtomicU64::new(1) }
    }

    /// A directory walked before.
    pub(super) fn get(&self, local: LocalRef) -> Option<Context> {
        self.lock().get(&local.0).map(|w| w.context.clone())
    }

    /// Forgets what was walked for a build.
    pub(super) fn forget(&self, build: &str) {
        let gone: Vec<Walked> = self.lock().extract_if(|_, w| w.build == build).map(|(_, w)| w).collect();
        // Copies are given back outside the lock.
        drop(gone);
    }

    /// Walks what a request wants, with the rights of the client that passed it.
    pub(super) async fn walk(&self, request: LocalRequest, cx: &VertexContext) -> Result<Local, ExecError> {
        let Opened { dir, thread_init, copy, received } = self.open(&request, cx).await?;
        let (trees, stats) = (self.trees.clone(), self.store.stat_cache());
        let synced = copy.is_some();
        // A walk that is given up goes on for a moment.
        let held = copy.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_on_drop = SetOnDrop(stop.clone());
        let walked = blocking(move || {
            let _held = held;
            let exclude = if synced { &[][..] } else { &request.exclude[..] };
            let ignored = PatternMatcher::new(exclude).map_err(ExecError::failed)?;
            let wanted = |list: Vec<String>| if synced { Vec::new() } else { list };
            let (include, follow) = (wanted(request.include.clone()), wanted(request.follow.clone()));
            walk(&WalkRequest {
                dir,
                ignored: &ignored,
                include_patterns: &include,
                follow_paths: &follow,
                stat_cache: &stats,
                trees,
                threads: cache::cores(),
                thread_init,
                cancel: &stop,
            })
            .map_err(ExecError::failed)
        });
        let context = tokio::select! {
            context = walked => context?,
            () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let walked = Walked { build: cx.build.clone(), context: context.clone(), _copy: copy };
        self.lock().insert(id, walked);
        Ok(Local { id: LocalRef(id), bytes: received.unwrap_or(context.stats.bytes), context })
    }

    /// The paths in a directory, ignored ones too, at most `limit`; those that nobody can tell are left out.
    pub(super) async fn names(
        &self,
        request: &LocalRequest,
        cx: &VertexContext,
        limit: usize,
    ) -> Vec<TreePath> {
        let ids = sessions_of(request, cx);
        if let Some((dir, init)) = self.passed(&ids, &request.name) {
            return blocking(move || names(dir.as_fd(), init.as_ref(), limit)).await;
        }
        for id in ids {
            if let Ok(names) = sync::names(&self.sessions, &id, &request.name, limit).await {
                return names;
            }
        }
        Vec::new()
    }

    /// What tells the directory that a session builds from others: its path and its owner where it came as a descriptor, else what
    /// its client says of it.
    pub(super) fn place(&self, id: &str, session: Option<&Session>) -> Vec<String> {
        if let Some(PassedDir { fd, peer }) = self.passed.directory(id, MAIN) {
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let path = fs_err::read_link(link).unwrap_or_default();
            return vec![format!("{peer:?}"), path.to_string_lossy().into_owned()];
        }
        let told = session.map(|session| vec![session.owner().to_owned(), session.shared_key().to_owned()]);
        told.unwrap_or_default()
    }

    /// What the directory that a client builds is called, whatever machine it is on; empty where that is not known.
    pub(super) fn called(&self, id: &str, session: Option<&Session>) -> String {
        match self.passed.directory(id, MAIN) {
            Some(_) => {
                let path = self.place(id, session).pop().unwrap_or_default();
                path.rsplit('/').next().unwrap_or_default().to_owned()
            }
            None => session.map(|session| session.name().to_owned()).unwrap_or_default(),
        }
    }

    async fn open(&self, request: &LocalRequest, cx: &VertexContext) -> Result<Opened, ExecError> {
        let ids = sessions_of(request, cx);
        // Clients pass directories as they are.
        let passed = if request.metadata.is_some() { None } else { self.passed(&ids, &request.name) };
        if let Some((dir, thread_init)) = passed {
            return Ok(Opened { dir, thread_init, copy: None, received: None });
        }
        let mut last = None;
        for id in ids {
            match sync::receive(&self.sessions, &id, &self.store, request, cx).await {
                Ok((copy, received)) => {
                    let dir = Arc::new(sync::open_dir(copy.dir()).map_err(ExecError::failed)?);
                    return Ok(Opened { dir, thread_init: None, copy: Some(copy), received: Some(received) });
                }
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| ExecError::failed(NoSession { name: request.name.clone() })))
    }

    /// A directory that came as a descriptor, and its owner's identity.
    fn passed(&self, ids: &[String], name: &str) -> Option<(Arc<OwnedFd>, Option<ThreadInit>)> {
        let passed = ids.iter().find_map(|id| self.passed.directory(id, name))?;
        Some((passed.fd, identity::of_peer(passed.peer)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Walked>> {
        self.walked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory to walk.
struct Opened {
    dir: Arc<OwnedFd>,
    /// How to take on its owner's identity.
    thread_init: Option<ThreadInit>,
    /// The copy that it is, if it was synchronised,
    copy: Option<Arc<CacheMountLease>>,
    /// and the bytes that came for that.
    received: Option<u64>,
}

/// A directory that was walked.
pub(super) struct Local {
    /// Stands for it until the build ends.
    pub id: LocalRef,
    /// Its content.
    pub context: Context,
    /// What the client had to send, in bytes; all of it where the directory is read in place.
    pub bytes: u64,
}

/// The sessions that may have the directory.
fn sessions_of(request: &LocalRequest, cx: &VertexContext) -> Vec<String> {
    match &request.session {
        Some(id) if !id.is_empty() => vec![id.clone()],
        _ => cx.sessions.ids(),
    }
}

/// Nobody can provide the directory.
#[derive(Debug, thiserror::Error)]
#[error("no session provides the local directory `{name}`")]
struct NoSession {
    name: String,
}
