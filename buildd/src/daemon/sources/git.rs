//! `git://…`: a commit of a repository, checked out by the git program.
//!
//! The URL is in the attribute `git.fullurl`; the identifier's fragment names ref and subdirectory.
//! git runs with a clean environment and configuration: no hooks, no system settings, no prompts, no transport that
//! reads this machine's files, and nothing that begins with a dash ever reaches its command line (T7).

mod access;
mod checkout;
mod refs;
mod request;
mod run;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use solver::digest::Hasher;
use solver::op::SourceOp;
use solver::{ExecError, Output, SourceAnswer, SourceIdentity, VertexContext, redacted};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use access::Access;
use checkout::{below, checkout};
use refs::Found;
use request::{Request, is_commit};
use run::Git;

use crate::daemon::blocking::blocking;
use crate::daemon::provenance::Pin;
use crate::daemon::snapshot::Maker;
use crate::daemon::turns::Turns;
use crate::session::SessionManager;

/// Checks out commits.
#[derive(Debug)]
pub(crate) struct GitSource {
    maker: Maker,
    /// Who lets git in.
    sessions: Arc<SessionManager>,
    /// By build and identifier: a branch that moves during a build does not move within it.
    pinned: Mutex<HashMap<(String, String), Arc<Pinned>>>,
    turns: Turns<(String, String)>,
}

/// A commit, and how it was named.
#[derive(Debug)]
struct Pinned {
    request: Request,
    /// Its name is empty for a commit given as such.
    found: Found,
    /// What it gave: another checkout would have other times.
    fetched: OnceCell<Output>,
}

/// What a git source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    /// The commit's hash.
    pub commit: String,
    /// What the name stands for: the commit, or the annotated tag around it.
    pub object: String,
    /// The full name; empty for a commit given as such.
    pub full_ref: String,
    /// The commit as git stores it, if it was asked for.
    pub commit_object: Vec<u8>,
    /// The tag as git stores it, if there is one and it was asked for.
    pub tag_object: Vec<u8>,
}

/// A git source failed.
#[derive(Debug, thiserror::Error)]
enum GitError {
    #[error("git source `{0}` names no URL")]
    NoUrl(String),
    #[error("invalid git {what} `{value}`")]
    Invalid { what: &'static str, value: String },
    #[error("repository does not contain ref {reference} ({url})")]
    NoRef { url: String, reference: String },
    #[error("subdirectory `{0}` is not a directory of the repository")]
    NoSubdir(String),
    #[error("expected checksum to match {want}, got {got}")]
    Checksum { want: String, got: String },
    #[error("invalid checksum {0} for Git URL, expected hex commit hash")]
    BadChecksum(String),
    #[error("fetch-by-commit requires a checksum or a commit SHA ref")]
    NoCommit,
    #[error("fetch-by-commit requires a full commit SHA checksum, got \"{0}\"")]
    ShortCommit(String),
}

impl GitSource {
    pub(super) fn new(maker: Maker, sessions: Arc<SessionManager>) -> Self {
        Self { maker, sessions, pinned: Mutex::default(), turns: Turns::default() }
    }

    pub(super) async fn identify(
        &self,
        op: &SourceOp,
        cx: &VertexContext,
    ) -> Result<SourceAnswer, ExecError> {
        let pinned = self.pin(op, cx).await?;
        let mut h = Hasher::new("rbuild.source.git.v1");
        let r = &pinned.request;
        h.str(&pinned.found.commit).str(&r.subdir).bool(r.keep_git_dir).bool(r.submodules);
        if r.keep_git_dir {
            h.str(&r.url).str(&pinned.found.full_ref).str(&pinned.found.object);
        }
        if r.commit_times {
            h.str("commit times");
        }
        Ok(SourceAnswer { identity: SourceIdentity::Digest(h.finish()), output: None })
    }

    pub(super) async fn fetch(&self, op: &SourceOp, cx: &VertexContext) -> Result<Output, ExecError> {
        let pinned = self.pin(op, cx).await?;
        pinned.fetched.get_or_try_init(|| self.check_out(&pinned, cx)).await.cloned()
    }

    async fn check_out(&self, pinned: &Pinned, cx: &VertexContext) -> Result<Output, ExecError> {
        let (work, access) = self.enter(&pinned.request, cx).await?;
        let top = work.path().join("tree");
        fs_err::create_dir(&top).map_err(ExecError::failed)?;
        let git = Git::new(&top, &access, cx);
        tokio::select! {
            r = checkout(pinned, &git) => r?,
            () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
        };
        let root = below(&top, &pinned.request.subdir).map_err(ExecError::failed)?;
        let (maker, build, description) =
            (self.maker.clone(), cx.build.clone(), format!("git snapshot for {}", pinned.request.url));
        blocking(move || {
            let output = maker.of_directory(&root, &build, &description);
            drop(work);
            output
        })
        .await
    }

    /// When the commit was made, in seconds since 1970.
    pub(super) async fn time(&self, op: &SourceOp, cx: &VertexContext) -> Result<i64, ExecError> {
        let pinned = self.pin(op, cx).await?;
        let (work, access) = self.enter(&pinned.request, cx).await?;
        let git = Git::new(work.path(), &access, cx);
        tokio::select! {
            time = checkout::time(&pinned, &git) => time,
            () = cx.cancel.cancelled() => Err(ExecError::Canceled),
        }
    }

    /// What the source is; with its objects if they are wanted, which have to be fetched.
    pub(super) async fn about(
        &self,
        op: &SourceOp,
        with_objects: bool,
        cx: &VertexContext,
    ) -> Result<About, ExecError> {
        let pinned = self.pin(op, cx).await?;
        let (commit_object, tag_object) = match with_objects {
            false => Default::default(),
            true => {
                let (work, access) = self.enter(&pinned.request, cx).await?;
                let git = Git::new(work.path(), &access, cx);
                tokio::select! {
                    objects = checkout::objects(&pinned, &git) => objects?,
                    () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
                }
            }
        };
        let Found { commit, object, full_ref } = pinned.found.clone();
        Ok(About { commit, object, full_ref, commit_object, tag_object })
    }

    /// What provenance tells of the source.
    pub(super) async fn told(&self, op: &SourceOp, cx: &VertexContext) -> Result<Pin, ExecError> {
        let pinned = self.pin(op, cx).await?;
        let mut url = redacted(&pinned.request.url).into_owned();
        if !pinned.request.reference.is_empty() {
            url = format!("{url}#{}", pinned.request.reference);
        }
        Ok(Pin::Git { url, commit: pinned.found.commit.clone() })
    }

    /// A directory to work in, and what lets git in.
    async fn enter(&self, request: &Request, cx: &VertexContext) -> Result<(TempDir, Access), ExecError> {
        let work = tempfile::tempdir_in(self.maker.chains.store.tmp()).map_err(ExecError::failed)?;
        let access = Access::new(request, &work, &self.sessions, cx).await?;
        Ok((work, access))
    }

    /// Forgets what was pinned for a build.
    pub(super) fn forget(&self, build: &str) {
        self.lock().retain(|(b, _), _| b != build);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Arc<Pinned>>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pin(&self, op: &SourceOp, cx: &VertexContext) -> Result<Arc<Pinned>, ExecError> {
        let key = (cx.build.clone(), format!("{op:?}"));
        // Several graphs of a build may ask at once, and the branch may have moved the second time.
        let _turn = self.turns.turn(key.clone()).await;
        if let Some(known) = self.lock().get(&key) {
            return Ok(known.clone());
        }
        let request = Request::new(op).map_err(ExecError::failed)?;
        let found = async {
            let (work, access) = self.enter(&request, cx).await?;
            look_up(&request, &Git::new(work.path(), &access, cx)).await
        };
        let found = tokio::select! {
            found = found => found?,
            () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
        };
        let pinned = Arc::new(Pinned { request, found, fetched: OnceCell::new() });
        self.lock().insert(key, pinned.clone());
        Ok(pinned)
    }
}

/// Finds the commit behind a branch, a tag or HEAD.
async fn look_up(request: &Request, git: &Git<'_>) -> Result<Found, ExecError> {
    let given = |commit: &str, full_ref: String| Found {
        commit: commit.to_owned(),
        object: commit.to_owned(),
        full_ref,
    };
    let reference = &request.reference;
    let found = match &request.checksum {
        _ if is_commit(reference) => given(reference, String::new()),
        Some(commit) if request.by_commit => given(
            commit,
            match reference.as_str() {
                "" => String::new(),
                full if full.starts_with("refs/") => full.to_owned(),
                branch => format!("refs/heads/{branch}"),
            },
        ),
        _ => {
            let patterns = refs::patterns(reference);
            let mut args = vec!["ls-remote", "--symref", "--", &request.url];
            args.extend(patterns.iter().map(String::as_str));
            let listing = git.run(&args).await?;
            let missing = || GitError::NoRef { url: request.url.clone(), reference: reference.clone() };
            refs::select(&listing, reference).ok_or_else(|| ExecError::failed(missing()))?
        }
    };
    let Found { commit, object, .. } = &found;
    match &request.checksum {
        Some(want) if !commit.starts_with(want.as_str()) && !object.starts_with(want.as_str()) => {
            let got = if found.is_tag() { format!("{object} or {commit}") } else { commit.clone() };
            Err(ExecError::failed(GitError::Checksum { want: want.clone(), got }))
        }
        _ => Ok(found),
    }
}
