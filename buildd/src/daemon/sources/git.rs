//! `git://…`: a commit of a repository, checked out by the git program.
//!
//! The URL is in the attribute `git.fullurl`; the identifier's fragment names ref and subdirectory.
//! git runs with a clean environment and configuration: no hooks, no system settings, no prompts, no transport that
//! reads this machine's files, and nothing that begins with a dash ever reaches its command line (T7).

mod run;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use solver::digest::Hasher;
use solver::op::{SourceOp, attr};
use solver::{ExecError, Output, SourceAnswer, SourceIdentity, VertexContext, redacted};

use run::Git;
use tokio::sync::OnceCell;

use crate::daemon::blocking::blocking;
use crate::daemon::snapshot::Maker;
use crate::daemon::turns::Turns;

/// Checks out commits.
#[derive(Debug)]
pub(crate) struct GitSource {
    maker: Maker,
    /// By build and identifier: a branch that moves during a build does not move within it.
    pinned: Mutex<HashMap<(String, String), Arc<Pinned>>>,
    turns: Turns<(String, String)>,
}

/// What a source asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    url: String,
    reference: String,
    subdir: String,
    checksum: Option<String>,
    keep_git_dir: bool,
    submodules: bool,
}

/// A commit, and how it was named.
#[derive(Debug)]
struct Pinned {
    request: Request,
    commit: String,
    /// The full name of the branch or tag, `HEAD`, or empty for a commit given as such.
    full_ref: String,
    /// What it gave: another checkout would have other times.
    fetched: OnceCell<Output>,
}

/// A git source failed.
#[derive(Debug, thiserror::Error)]
enum GitError {
    #[error("git source `{0}` names no URL")]
    NoUrl(String),
    #[error("invalid git {what} `{value}`")]
    Invalid { what: &'static str, value: String },
    #[error("repository `{url}` does not contain ref `{reference}`")]
    NoRef { url: String, reference: String },
    #[error("subdirectory `{0}` is not a directory of the repository")]
    NoSubdir(String),
    #[error("expected checksum to match {want}, got {got}")]
    Checksum { want: String, got: String },
}

impl Request {
    fn new(op: &SourceOp) -> Result<Self, GitError> {
        let (_, rest) = op.scheme_and_ref();
        let (plain, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let url = match op.attrs.get(attr::FULL_REMOTE_URL) {
            Some(url) => url.clone(),
            None if plain.is_empty() => return Err(GitError::NoUrl(op.identifier.clone())),
            None => format!("https://{plain}"),
        };
        for (what, value) in [("URL", &url[..]), ("ref", reference), ("subdirectory", subdir)] {
            let bad = value.starts_with('-') || value.contains(['\0', '\n']);
            let escapes = what == "subdirectory" && value.split('/').any(|c| c == "..");
            if bad || escapes {
                return Err(GitError::Invalid { what, value: value.to_owned() });
            }
        }
        let flag = |name| op.attrs.get(name).is_some_and(|v| v == "true");
        Ok(Self {
            url,
            reference: reference.to_owned(),
            subdir: subdir.trim_matches('/').to_owned(),
            checksum: op.attrs.get(attr::GIT_CHECKSUM).filter(|c| !c.is_empty()).cloned(),
            keep_git_dir: flag(attr::KEEP_GIT_DIR),
            submodules: !flag(attr::GIT_SKIP_SUBMODULES),
        })
    }
}

impl GitSource {
    pub(super) fn new(maker: Maker) -> Self {
        Self { maker, pinned: Mutex::default(), turns: Turns::default() }
    }

    pub(super) async fn identify(
        &self,
        op: &SourceOp,
        cx: &VertexContext,
    ) -> Result<SourceAnswer, ExecError> {
        let pinned = self.pin(op, cx).await?;
        let mut h = Hasher::new("rbuild.source.git.v1");
        let r = &pinned.request;
        h.str(&pinned.commit).str(&r.subdir).bool(r.keep_git_dir).bool(r.submodules);
        if r.keep_git_dir {
            h.str(&r.url).str(&pinned.full_ref);
        }
        Ok(SourceAnswer { identity: SourceIdentity::Digest(h.finish()), output: None })
    }

    pub(super) async fn fetch(&self, op: &SourceOp, cx: &VertexContext) -> Result<Output, ExecError> {
        let pinned = self.pin(op, cx).await?;
        pinned.fetched.get_or_try_init(|| self.check_out(&pinned, cx)).await.cloned()
    }

    async fn check_out(&self, pinned: &Pinned, cx: &VertexContext) -> Result<Output, ExecError> {
        let work = tempfile::tempdir_in(self.maker.chains.store.tmp()).map_err(ExecError::failed)?;
        let checkout = checkout(pinned, work.path(), cx);
        tokio::select! {
            r = checkout => r?,
            () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
        };
        let top = work.path().join("tree");
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
        let (request, commit, full_ref) = look_up(request, cx).await?;
        let pinned = Arc::new(Pinned { request, commit, full_ref, fetched: OnceCell::new() });
        self.lock().insert(key, pinned.clone());
        Ok(pinned)
    }
}

/// Finds the commit behind a branch, a tag or HEAD.
async fn look_up(request: Request, cx: &VertexContext) -> Result<(Request, String, String), ExecError> {
    let (commit, full_ref) = match is_commit(&request.reference) {
        true => (request.reference.clone(), String::new()),
        false => {
            let listing = Git::new(None, cx).run(&["ls-remote", "--", &request.url]).await?;
            let missing =
                || GitError::NoRef { url: request.url.clone(), reference: request.reference.clone() };
            select_ref(&listing, &request.reference).ok_or_else(|| ExecError::failed(missing()))?
        }
    };
    match &request.checksum {
        Some(want) if !commit.starts_with(want.as_str()) => {
            Err(ExecError::failed(GitError::Checksum { want: want.clone(), got: commit }))
        }
        _ => Ok((request, commit, full_ref)),
    }
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The commit and full name behind `wanted` in the output of ls-remote; an annotated tag stands for its commit.
fn select_ref(listing: &str, wanted: &str) -> Option<(String, String)> {
    let refs: HashMap<&str, &str> =
        listing.lines().filter_map(|l| l.split_once('\t')).map(|(c, r)| (r.trim(), c)).collect();
    let names = match wanted {
        "" => vec!["HEAD".to_owned()],
        full if full.starts_with("refs/") => vec![full.to_owned()],
        short => ["refs/heads/", "refs/tags/"].map(|p| format!("{p}{short}")).to_vec(),
    };
    names.into_iter().find_map(|name| {
        let commit = refs.get(format!("{name}^{{}}").as_str()).or_else(|| refs.get(name.as_str()))?;
        Some(((*commit).to_owned(), name))
    })
}

async fn checkout(pinned: &Pinned, work: &Path, cx: &VertexContext) -> Result<(), ExecError> {
    let Pinned { request, commit, full_ref, .. } = pinned;
    let tree = work.join("tree");
    fs_err::create_dir(&tree).map_err(ExecError::failed)?;
    let git = Git::new(Some(&tree), cx);
    git.run(&["init", "--quiet", "--initial-branch=master", "."]).await?;
    git.run(&["remote", "add", "origin", &request.url]).await?;
    // Servers may refuse to give a bare commit; then all branches and tags are fetched and it is looked for there.
    let direct = if full_ref.is_empty() { commit } else { full_ref };
    let by_name = git.run(&["fetch", "--quiet", "--depth=1", "--no-tags", "origin", "--", direct]).await;
    // The name may have moved on since it was looked up.
    let there = format!("{commit}^{{commit}}");
    if by_name.is_err() || git.run(&["cat-file", "-e", &there]).await.is_err() {
        git.run(&[
            "fetch",
            "--quiet",
            "--tags",
            "--update-head-ok",
            "origin",
            "+refs/heads/*:refs/remotes/origin/*",
        ])
        .await?;
    }
    git.run(&["checkout", "--quiet", "--force", "--detach", commit]).await?;
    if request.submodules {
        git.run(&["submodule", "update", "--init", "--recursive", "--depth=1"]).await?;
    }
    finish(pinned, &tree, &git).await
}

/// Keeps or drops what belongs to git itself.
async fn finish(pinned: &Pinned, tree: &Path, git: &Git<'_>) -> Result<(), ExecError> {
    if !pinned.request.keep_git_dir {
        return remove_git_dirs(tree).map_err(ExecError::failed);
    }
    if let Some(branch) = pinned.full_ref.strip_prefix("refs/heads/") {
        git.run(&["checkout", "--quiet", "--force", "-B", branch]).await?;
    }
    forget_credentials(&tree.join(".git")).map_err(ExecError::failed)
}

/// Masks the credentials of URLs in git's own files, submodules' included: they become part of the image.
fn forget_credentials(git_dir: &Path) -> std::io::Result<()> {
    for entry in walkdir::WalkDir::new(git_dir).follow_links(false).into_iter().filter_map(Result::ok) {
        let noted = matches!(entry.file_name().to_str(), Some("config" | "FETCH_HEAD"));
        let logged = entry.path().components().any(|c| c.as_os_str() == "logs");
        if !entry.file_type().is_file() || !(noted || logged) {
            continue;
        }
        let Ok(text) = fs_err::read_to_string(entry.path()) else { continue };
        if let Cow::Owned(masked) = redacted(&text) {
            fs_err::write(entry.path(), masked)?;
        }
    }
    Ok(())
}

/// Removes `.git` at the top and the `.git` files of submodules.
fn remove_git_dirs(tree: &Path) -> std::io::Result<()> {
    let walk = walkdir::WalkDir::new(tree).follow_links(false).into_iter();
    let found: Vec<_> = walk
        .filter_map(Result::ok)
        .filter(|e| e.file_name() == ".git" && (e.depth() == 1 || e.file_type().is_file()))
        .map(walkdir::DirEntry::into_path)
        .collect();
    for path in found {
        match path.is_dir() && !path.is_symlink() {
            true => fs_err::remove_dir_all(path)?,
            false => fs_err::remove_file(path)?,
        }
    }
    Ok(())
}

/// A subdirectory, reached without any symbolic link.
fn below(top: &Path, subdir: &str) -> Result<std::path::PathBuf, GitError> {
    let mut path = top.to_owned();
    for part in subdir.split('/').filter(|p| !p.is_empty() && *p != ".") {
        path.push(part);
        if !fs_err::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
            return Err(GitError::NoSubdir(subdir.to_owned()));
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "aaa\tHEAD\nbbb\trefs/heads/main\nccc\trefs/heads/v1\nddd\trefs/tags/v1\neee\trefs/tags/v2\nfff\trefs/tags/v2^{}\n";

    #[test]
    fn refs_are_found_as_git_would() {
        for (wanted, commit, name) in [
            ("", "aaa", "HEAD"),
            ("main", "bbb", "refs/heads/main"),
            ("v1", "ccc", "refs/heads/v1"),
            ("refs/tags/v1", "ddd", "refs/tags/v1"),
            ("v2", "fff", "refs/tags/v2"),
        ] {
            assert_eq!(select_ref(LISTING, wanted), Some((commit.to_owned(), name.to_owned())), "{wanted}");
        }
        assert_eq!(select_ref(LISTING, "nope"), None);
    }

    #[test]
    fn what_could_be_an_option_or_lead_out_is_rejected() {
        let of = |fragment: &str, url: &str| {
            let attrs = [(attr::FULL_REMOTE_URL.to_owned(), url.to_owned())].into();
            Request::new(&SourceOp { identifier: format!("git://x/y{fragment}"), attrs }).is_err()
        };
        assert!(of("#--upload-pack=x", "https://x/y"));
        assert!(of("#main:../../etc", "https://x/y"));
        assert!(of("", "--upload-pack=x"));
        assert!(!of("#main:a/b", "https://x/y"));
    }

    #[test]
    fn a_subdirectory_is_no_link() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(dir.path().join("a/b")).unwrap();
        fs_err::os::unix::fs::symlink("/etc", dir.path().join("a/out")).unwrap();
        fs_err::os::unix::fs::symlink("b", dir.path().join("a/in")).unwrap();
        assert_eq!(below(dir.path(), "a/./b").unwrap(), dir.path().join("a/b"));
        for link in ["a/out", "a/in", "a/out/ssl", "nothing"] {
            assert!(below(dir.path(), link).is_err(), "{link}");
        }
    }

    #[test]
    fn gits_own_files_forget_credentials() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("config", "url = https://u:p@h/x\n"),
            ("FETCH_HEAD", "abc\t\tbranch 'main' of https://u:p@h/x\n"),
            ("logs/HEAD", "0 1 t <t@t> clone: from https://u:p@h/x\n"),
            ("modules/m/config", "url = https://u:p@h/y\n"),
        ] {
            let path = dir.path().join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        forget_credentials(dir.path()).unwrap();
        let read = |file: &str| fs_err::read_to_string(dir.path().join(file)).unwrap();
        for file in ["config", "FETCH_HEAD", "logs/HEAD", "modules/m/config"] {
            assert!(read(file).contains("https://xxxxx:xxxxx@h"), "{file}: {}", read(file));
        }
    }
}
