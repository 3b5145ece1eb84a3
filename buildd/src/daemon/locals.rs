//! Directories of sessions: passed as descriptors, or synchronised over the session.

mod identity;
mod sync;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::context::{Context, ThreadInit, WalkRequest, names, walk};
use cache::store::StatCache;
use cache::tree::{TreePath, Trees};
use solver::op::attr;
use solver::pattern::PatternMatcher;
use solver::{ExecError, LocalRef, VertexContext};

use super::blocking::blocking;
use super::side::Passed;
use super::worker::SetOnDrop;
use crate::session::SessionManager;

/// The directories that builds copy from.
#[derive(Debug)]
pub(super) struct Locals {
    stats: StatCache,
    trees: Arc<Trees>,
    passed: Arc<Passed>,
    sessions: Arc<SessionManager>,
    /// Where copies of directories go.
    tmp: PathBuf,
    walked: Mutex<HashMap<u64, Walked>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Walked {
    build: String,
    context: Context,
    /// What was synchronised for it, if it did not come as a descriptor.
    copy: Option<tempfile::TempDir>,
}

/// Which part of a local source is wanted: LLB's attributes, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LocalRequest {
    /// The name that the client gave the directory.
    pub name: String,
    /// The session, where the source names one.
    pub session: Option<String>,
    /// Only these.
    pub include: Vec<String>,
    /// Not these.
    pub exclude: Vec<String>,
    /// Only what these paths need, links followed.
    pub follow: Vec<String>,
}

/// A list attribute that is no JSON list of texts.
#[derive(Debug, thiserror::Error)]
#[error("invalid `{attr}` of local source `{name}`")]
struct BadAttr {
    attr: &'static str,
    name: String,
    #[source]
    source: serde_json::Error,
}

impl LocalRequest {
    /// Reads the attributes of a `local://NAME` source.
    ///
    /// # Errors
    /// A pattern list that is no JSON list.
    pub(super) fn new(name: &str, attrs: &BTreeMap<String, String>) -> Result<Self, ExecError> {
        let list = |attr: &'static str| -> Result<Vec<String>, ExecError> {
            let Some(json) = attrs.get(attr) else { return Ok(Vec::new()) };
            let list: Option<Vec<String>> = serde_json::from_str(json)
                .map_err(|source| ExecError::failed(BadAttr { attr, name: name.to_owned(), source }))?;
            Ok(list.unwrap_or_default())
        };
        Ok(Self {
            name: name.to_owned(),
            session: attrs.get(attr::LOCAL_SESSION_ID).cloned(),
            include: list(attr::INCLUDE_PATTERNS)?,
            exclude: list(attr::EXCLUDE_PATTERNS)?,
            follow: list(attr::FOLLOW_PATHS)?,
        })
    }
}

impl Locals {
    /// No directories yet.
    pub(super) fn new(
        stats: StatCache,
        trees: Arc<Trees>,
        passed: Arc<Passed>,
        sessions: Arc<SessionManager>,
        tmp: PathBuf,
    ) -> Self {
        Self { stats, trees, passed, sessions, tmp, walked: Mutex::default(), next: AtomicU64::new(1) }
    }

    /// A directory walked before.
    pub(super) fn get(&self, local: LocalRef) -> Option<Context> {
        self.lock().get(&local.0).map(|w| w.context.clone())
    }

    /// Forgets what was walked for a build.
    pub(super) fn forget(&self, build: &str) {
        let gone: Vec<Walked> = self.lock().extract_if(|_, w| w.build == build).map(|(_, w)| w).collect();
        if gone.iter().any(|w| w.copy.is_some()) {
            // Deleting a large copy takes minutes, for which neither builds nor the daemon's end wait: what is left of
            // it goes at the next start.
            std::thread::spawn(move || drop(gone));
        }
    }

    /// Walks what a request wants, with the rights of the client that passed it.
    pub(super) async fn walk(
        &self,
        request: LocalRequest,
        cx: &VertexContext,
    ) -> Result<(LocalRef, Context), ExecError> {
        let (dir, thread_init, copy) = self.open(&request, cx).await?;
        let (trees, stats) = (self.trees.clone(), self.stats.clone());
        let synced = copy.is_some();
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_on_drop = SetOnDrop(stop.clone());
        let walked = blocking(move || {
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
        let walked = Walked { build: cx.build.clone(), context: context.clone(), copy };
        self.lock().insert(id, walked);
        Ok((LocalRef(id), context))
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

    async fn open(&self, request: &LocalRequest, cx: &VertexContext) -> Result<Opened, ExecError> {
        let ids = sessions_of(request, cx);
        if let Some((dir, init)) = self.passed(&ids, &request.name) {
            return Ok((dir, init, None));
        }
        let mut last = None;
        for id in ids {
            match sync::receive(&self.sessions, &id, &self.tmp, request, cx).await {
                Ok(copy) => {
                    let dir = sync::open_dir(copy.path()).map_err(ExecError::failed)?;
                    return Ok((Arc::new(dir), None, Some(copy)));
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

/// A directory, how to take on its owner's identity, and the copy that it is, if it was synchronised.
type Opened = (Arc<OwnedFd>, Option<ThreadInit>, Option<tempfile::TempDir>);

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
