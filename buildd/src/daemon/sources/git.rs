//! `git://…`: a commit of a repository, checked out by the git program.
//!
//! The URL is in the attribute `git.fullurl`; the identifier's fragment names ref and subdirectory.
//! git runs with a clean environment and configuration: no hooks, no system settings, no prompts, no transport that
//! reads this machine's files (but for a bundle that the daemon itself has put there), and nothing that begins with a dash ever reaches its command line (T7).

mod access;
mod bundle;
mod checkout;
mod refs;
mod request;
mod run;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use cache::layer::Meta;
use solver::digest::Hasher;
use solver::op::SourceOp;
use solver::{Digest, ExecError, Output, SourceAnswer, SourceIdentity, VertexContext, redacted};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use access::Access;
use checkout::{Objects, below, checkout};
use refs::Found;
use request::Request;
pub(super) use request::SIGNATURE;
use run::Git;

use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::provenance::{Pin, PinnedBlob};
use crate::daemon::snapshot::Maker;
use crate::daemon::sources::image::ImageSource;
use crate::daemon::sources::image::blob::LocatorError;
use crate::daemon::turns::Turns;
use crate::session::SessionManager;
use crate::signatures::Signed;

/// Checks out commits.
#[derive(Debug)]
pub(crate) struct GitSource {
    maker: Maker,
    /// Who lets git in.
    sessions: Arc<SessionManager>,
    /// Bundles are blobs of images.
    images: Arc<ImageSource>,
    /// By build and identifier: a branch that moves during a build does not move within it.
    pinned: Mutex<HashMap<(String, String), Arc<Pinned>>>,
    /// By build, and remote with reference: sources that differ in other things see the same commit.
    found: Mutex<HashMap<(String, String), Found>>,
    turns: Turns<(String, String)>,
}

/// Where git works.
#[derive(Debug)]
struct Place {
    /// Goes with this.
    dir: TempDir,
    /// What lets git in.
    access: Access,
    /// The file that has the commits, instead of the remote.
    bundle: Option<PathBuf>,
}

/// A commit, and how it was named.
#[derive(Debug)]
struct Pinned {
    request: Request,
    /// Its name is empty for a commit given as such.
    found: Found,
    /// What it gave. Another checkout would have other times, so what is the same source by its key has this in common.
    fetched: Arc<OnceCell<Output>>,
    /// What tells it from other sources.
    identity: Digest,
}

impl Pinned {
    fn new(request: Request, found: Found) -> Self {
        let identity = Self::identity(&request, &found);
        Self { request, found, fetched: Arc::default(), identity }
    }

    fn identity(r: &Request, found: &Found) -> Digest {
        let mut h = Hasher::new("rbuild.source.git.v1");
        h.str(&found.commit).str(&r.subdir).bool(r.keep_git_dir).bool(r.submodules);
        if r.keep_git_dir {
            h.str(&r.url).str(&found.full_ref).str(&found.object);
        }
        if r.commit_times {
            h.str("commit times");
        }
        if r.as_bundle {
            h.str("bundle").str(&bundle::tip(&r.reference));
        }
        h.finish()
    }
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
    #[error("invalid git.bundle locator")]
    Bundle(#[from] LocatorError),
    #[error("git.bundle requires git.checksum to be set")]
    BundleWithoutChecksum,
    #[error("commit {commit} not found in bundle {bundle}")]
    NotInBundle { commit: String, bundle: String },
    #[error("failed to inspect git bundle {0}: no refs found")]
    EmptyBundle(String),
    #[error("git.checkoutbundle is incompatible with {0}")]
    BundleAnd(&'static str),
    #[error("tag {tag} is of commit {commit}, and not of {told} as the repository says")]
    TagElsewhere { tag: String, commit: String, told: String },
}

impl GitSource {
    pub(super) fn new(maker: Maker, sessions: Arc<SessionManager>, images: Arc<ImageSource>) -> Self {
        Self {
            maker,
            sessions,
            images,
            pinned: Mutex::default(),
            found: Mutex::default(),
            turns: Turns::default(),
        }
    }

    pub(super) async fn identify(
        &self,
        op: &SourceOp,
        cx: &VertexContext,
    ) -> Result<SourceAnswer, ExecError> {
        let pinned = self.pin(op, cx).await?;
        let (identity, revision) = (pinned.identity, Some(pinned.found.commit.clone()));
        Ok(SourceAnswer { identity: SourceIdentity::Digest(identity), revision, output: None })
    }

    pub(super) async fn fetch(&self, op: &SourceOp, cx: &VertexContext) -> Result<Output, ExecError> {
        let pinned = self.pin(op, cx).await?;
        pinned.fetched.get_or_try_init(|| self.check_out(&pinned, cx)).await.cloned()
    }

    async fn check_out(&self, pinned: &Pinned, cx: &VertexContext) -> Result<Output, ExecError> {
        let place = self.enter(&pinned.request, cx).await?;
        let top = place.dir.path().join("tree");
        fs_err::create_dir(&top).map_err(ExecError::failed)?;
        let git = Git::new(&top, &place, cx);
        let (maker, build) = (self.maker.clone(), cx.build.clone());
        if pinned.request.as_bundle {
            let file = place.dir.path().join("made.bundle");
            tokio::select! {
                r = bundle::create(pinned, &file, &git) => r?,
                () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
            };
            let description = format!("git bundle checkout for {}", pinned.request.url);
            return blocking(move || {
                let bytes = fs_err::File::open(&file).map_err(ExecError::failed)?;
                let meta = Meta { mode: 0o644, ..Meta::default() };
                let output = maker.of_file(bundle::FILE, &meta, bytes, &build, &description);
                drop(place);
                output
            })
            .await;
        }
        tokio::select! {
            r = checkout(pinned, &git) => r?,
            () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
        };
        let root = below(&top, &pinned.request.subdir).map_err(ExecError::failed)?;
        let description = format!("git snapshot for {}", pinned.request.url);
        blocking(move || {
            let output = maker.of_directory(&root, &build, &description);
            drop(place);
            output
        })
        .await
    }

    /// When the commit was made, in seconds since 1970.
    pub(super) async fn time(&self, op: &SourceOp, cx: &VertexContext) -> Result<i64, ExecError> {
        let pinned = self.pin(op, cx).await?;
        let place = self.enter(&pinned.request, cx).await?;
        let git = Git::new(place.dir.path(), &place, cx);
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
        let Found { mut commit, object, full_ref } = pinned.found.clone();
        let (mut commit_object, mut tag_object) = Default::default();
        if with_objects {
            let objects = self.objects(&pinned, cx).await?;
            (commit, commit_object) = (objects.commit_id, objects.commit);
            tag_object = objects.tag.unwrap_or_default();
        }
        Ok(About { commit, object, full_ref, commit_object, tag_object })
    }

    /// The commit and the tag, fetched.
    async fn objects(&self, pinned: &Pinned, cx: &VertexContext) -> Result<Objects, ExecError> {
        let place = self.enter(&pinned.request, cx).await?;
        let git = Git::new(place.dir.path(), &place, cx);
        tokio::select! {
            objects = checkout::objects(pinned, &git) => objects,
            () = cx.cancel.cancelled() => Err(ExecError::Canceled),
        }
    }

    /// Refuses a commit that is not signed by whom the request names. That is no part of the key: no build gets the result of
    /// another one without asking this.
    async fn verify(&self, pinned: &Pinned, cx: &VertexContext) -> Result<(), ExecError> {
        let Some(signer) = pinned.request.signer.clone() else { return Ok(()) };
        let objects = self.objects(pinned, cx).await?;
        let id = pinned.found.object.to_ascii_lowercase();
        let verdict = blocking(move || {
            let commit = Signed { id: &objects.commit_id, raw: &objects.commit };
            let tag = objects.tag.as_ref().map(|raw| Signed { id: &id, raw });
            signer.verify(commit, tag, SystemTime::now())
        });
        verdict.await.map_err(ExecError::failed)
    }

    /// What provenance tells of the source.
    pub(super) async fn told(&self, op: &SourceOp, cx: &VertexContext) -> Result<Pin, ExecError> {
        let pinned = self.pin(op, cx).await?;
        let mut url = redacted(&pinned.request.url).into_owned();
        if !pinned.request.reference.is_empty() {
            url = format!("{url}#{}", pinned.request.reference);
        }
        let bundle = pinned.request.bundle.clone().map(PinnedBlob::from);
        Ok(Pin::Git { url, commit: pinned.found.commit.clone(), bundle })
    }

    /// Where git works, with all that it needs.
    async fn enter(&self, request: &Request, cx: &VertexContext) -> Result<Place, ExecError> {
        let store = &self.maker.chains.store;
        let dir = tempfile::tempdir_in(store.tmp()).map_err(ExecError::failed)?;
        let access = Access::new(request, &dir, &self.sessions, cx).await?;
        let Some(locator) = &request.bundle else { return Ok(Place { dir, access, bundle: None }) };
        self.images.fetch_blob(locator, cx).await?;
        let (file, blobs, digest) = (dir.path().join("given.bundle"), store.clone(), locator.digest);
        let bundle = Some(file.clone());
        blocking(move || {
            let mut blob = blobs.blobs().open(&digest).map_err(from_store)?;
            let mut file = fs_err::File::create_new(file).map_err(ExecError::failed)?;
            std::io::copy(&mut blob, &mut file).map_err(ExecError::failed)
        })
        .await?;
        Ok(Place { dir, access, bundle })
    }

    /// What BuildKit's caches know the source by (`source/git/source.go`).
    ///
    /// # Errors
    /// A repository that cannot be asked.
    pub(super) async fn buildkit_keys(
        &self,
        op: &SourceOp,
        cx: &VertexContext,
    ) -> Result<Vec<String>, ExecError> {
        let pinned = self.pin(op, cx).await?;
        let request = &pinned.request;
        let Found { commit, object, full_ref } = &pinned.found;
        let mut key = commit.clone();
        if request.keep_git_dir {
            // The names are part of what is there; a commit is its own.
            let (object, name) = match full_ref.as_str() {
                "" if request.by_commit => (commit, &request.reference),
                "" => (commit, commit),
                _ => (object, full_ref),
            };
            key = format!("{object}.git");
            if !name.is_empty() {
                key = format!("{key}#{name}");
            }
        }
        if !request.subdir.is_empty() {
            key = format!("{key}:{}", request.subdir);
        }
        if !request.submodules {
            key.push_str("(skip-submodules)");
        }
        if request.commit_times {
            key.push_str("(mtime=commit)");
        }
        if request.as_bundle {
            key.push_str("(bundle)");
        }
        Ok(vec![key])
    }

    /// Forgets what was pinned for a build.
    pub(super) fn forget(&self, build: &str) {
        self.lock().retain(|(b, _), _| b != build);
        self.found().retain(|(b, _), _| b != build);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Arc<Pinned>>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pin(&self, op: &SourceOp, cx: &VertexContext) -> Result<Arc<Pinned>, ExecError> {
        let key = (cx.build.clone(), format!("{op:?}"));
        let request = Request::new(op).map_err(ExecError::failed)?;
        let asked = (cx.build.clone(), request.asked());
        // Several graphs of a build may ask at once, and the branch may have moved the second time.
        let _turn = self.turns.turn(asked.clone()).await;
        if let Some(known) = self.lock().get(&key) {
            return Ok(known.clone());
        }
        let known = request.given().or_else(|| self.found().get(&asked).cloned());
        let found = async {
            match known {
                Some(found) => checked(&request, found),
                None => {
                    let place = self.enter(&request, cx).await?;
                    let found = look_up(&request, &Git::new(place.dir.path(), &place, cx)).await?;
                    self.found().insert(asked, found.clone());
                    checked(&request, found)
                }
            }
        };
        let found = tokio::select! {
            found = found => found?,
            () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
        };
        let mut pinned = Pinned::new(request, found);
        self.verify(&pinned, cx).await?;
        let mut all = self.lock();
        let mut of_build = all.iter().filter(|((build, _), _)| *build == cx.build);
        if let Some((_, same)) = of_build.find(|(_, other)| other.identity == pinned.identity) {
            pinned.fetched = same.fetched.clone();
        }
        let pinned = Arc::new(pinned);
        all.insert(key, pinned.clone());
        Ok(pinned)
    }
}

/// Finds the commit behind a branch, a tag or HEAD.
async fn look_up(request: &Request, git: &Git<'_>) -> Result<Found, ExecError> {
    let reference = &request.reference;
    let listing = match git.bundle() {
        Some(_) => bundle::list(request, git).await?,
        None => {
            let patterns = refs::patterns(reference);
            let mut args = vec!["ls-remote", "--symref", "--", &request.url];
            args.extend(patterns.iter().map(String::as_str));
            git.run(&args).await?
        }
    };
    let missing = || GitError::NoRef { url: request.url.clone(), reference: reference.clone() };
    refs::select(&listing, reference).ok_or_else(|| ExecError::failed(missing()))
}

/// What was found, if it is what the request's checksum says.
fn checked(request: &Request, found: Found) -> Result<Found, ExecError> {
    let Found { commit, object, .. } = &found;
    match &request.checksum {
        Some(want) if !commit.starts_with(want.as_str()) && !object.starts_with(want.as_str()) => {
            let got = if found.is_tag() { format!("{object} or {commit}") } else { commit.clone() };
            Err(ExecError::failed(GitError::Checksum { want: want.clone(), got }))
        }
        _ => Ok(found),
    }
}
