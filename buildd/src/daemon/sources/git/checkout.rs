//! Fetching a commit and making its files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use solver::{ExecError, redacted};
use walkdir::{DirEntry, WalkDir};

use super::{Found, GitError, Pinned, bundle, run::Git};
use crate::daemon::blocking::blocking;

/// Checks the commit out into the directory in which `git` runs, which is empty.
pub(super) async fn checkout(pinned: &Pinned, git: &Git<'_>) -> Result<(), ExecError> {
    let Pinned { request, found, .. } = pinned;
    fetch(pinned, git).await?;
    git.run(&["remote", "add", "origin", &request.url]).await?;
    git.run(&["checkout", "--quiet", "--force", "--detach", &found.commit]).await?;
    let submodules = ["submodule", "update", "--init", "--recursive", "--depth=1"];
    if request.submodules && !git.succeeds(&submodules).await {
        // Not every server knows depths; and what it says of a failure that has other causes is to be shown.
        git.run(&submodules[..4]).await?;
    }
    if request.keep_git_dir {
        keep(pinned, git).await?;
    }
    let time = match request.commit_times {
        true => Some(commit_time(pinned, git).await?),
        false => None,
    };
    let (tree, keep) = (git.dir().to_owned(), request.keep_git_dir);
    let tidied = blocking(move || {
        match keep {
            true => forget_credentials(&tree.join(".git"))?,
            false => remove_git_dirs(&tree)?,
        }
        time.map_or(Ok(()), |time| set_times(&tree, time))
    });
    tidied.await.map_err(ExecError::failed)
}

/// When the commit was made, in seconds since 1970; `git` runs in an empty directory.
pub(super) async fn time(pinned: &Pinned, git: &Git<'_>) -> Result<i64, ExecError> {
    fetch(pinned, git).await?;
    commit_time(pinned, git).await
}

/// A commit as git stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Objects {
    /// The commit's hash.
    pub(super) commit_id: String,
    pub(super) commit: Vec<u8>,
    /// The annotated tag by which it was found.
    pub(super) tag: Option<Vec<u8>>,
}

/// What a name stands for, the tag's hash too; `git` runs in an empty directory.
pub(super) async fn objects(pinned: &Pinned, git: &Git<'_>) -> Result<Objects, ExecError> {
    fetch(pinned, git).await?;
    let Found { commit, object, .. } = &pinned.found;
    let is_tag = git.run(&["cat-file", "-t", object]).await?.trim() == "tag";
    // What the server says of a tag is not what the tag says.
    let commit_id = git.run(&["rev-parse", "--verify", &format!("{object}^{{commit}}")]).await?;
    let commit_id = commit_id.trim().to_owned();
    if pinned.found.is_tag() && commit_id != *commit {
        let (tag, told) = (object.clone(), commit.clone());
        return Err(ExecError::failed(GitError::TagElsewhere { tag, commit: commit_id, told }));
    }
    let tag = match is_tag {
        true => Some(git.bytes(&["cat-file", "tag", object]).await?),
        false => None,
    };
    let commit = git.bytes(&["cat-file", "commit", &commit_id]).await?;
    Ok(Objects { commit_id, commit, tag })
}

async fn commit_time(pinned: &Pinned, git: &Git<'_>) -> Result<i64, ExecError> {
    let time = git.run(&["log", "-1", "--format=%ct", &pinned.found.commit]).await?;
    time.trim().parse().map_err(ExecError::failed)
}

/// Makes a repository and brings the commit in, with as little of its history as the server allows.
pub(super) async fn fetch(pinned: &Pinned, git: &Git<'_>) -> Result<(), ExecError> {
    let Pinned { request, found, .. } = pinned;
    let there = format!("{}^{{commit}}", found.commit);
    if let (Some(file), Some(locator)) = (git.bundle(), &request.bundle) {
        bundle::unpack(file, locator, git).await?;
        let (commit, bundle) = (found.commit.clone(), locator.reference.to_string());
        return match git.succeeds(&["cat-file", "-e", &there]).await {
            true => Ok(()),
            false => Err(ExecError::failed(GitError::NotInBundle { commit, bundle })),
        };
    }
    let format = if found.commit.len() == 64 { "sha256" } else { "sha1" };
    let format = format!("--object-format={format}");
    git.run(&["init", "--quiet", "--initial-branch=master", &format, "."]).await?;
    let by_name = !request.by_commit && !found.full_ref.is_empty();
    // The name may have moved on since it was looked up; servers may refuse to give a bare commit, or know no depth.
    let names = [by_name.then_some(&found.full_ref), Some(&found.commit)];
    // A bundle needs the whole history.
    let depths: &[&[&str]] = if request.as_bundle { &[&[]] } else { &[&["--depth=1"], &[]] };
    for depth in depths {
        for wanted in names.into_iter().flatten() {
            let fetch = ["fetch", "--quiet", "--no-tags"].iter().chain(*depth);
            let fetch: Vec<_> = fetch.copied().chain(["--", &request.url, wanted]).collect();
            if git.succeeds(&fetch).await && git.succeeds(&["cat-file", "-e", &there]).await {
                return Ok(());
            }
        }
    }
    let all = ["fetch", "--quiet", "--tags", "--", &request.url, "+refs/heads/*:refs/rbuild/*"];
    git.run(&all).await.map(drop)
}

/// Leaves the git directory as BuildKit does: HEAD is the commit, and the name that was asked for names it.
async fn keep(pinned: &Pinned, git: &Git<'_>) -> Result<(), ExecError> {
    let found = &pinned.found;
    let whole = git.run(&["for-each-ref", "--format=delete %(refname)", "refs/rbuild"]).await?;
    for name in whole.lines().filter_map(|line| line.strip_prefix("delete ")) {
        git.run(&["update-ref", "-d", name]).await?;
    }
    if found.full_ref.starts_with("refs/") {
        let has_object = git.succeeds(&["cat-file", "-e", &found.object]).await;
        let object = if has_object { &found.object } else { &found.commit };
        git.run(&["update-ref", &found.full_ref, object]).await?;
    }
    git.run(&["reflog", "expire", "--all", "--expire=now"]).await?;
    match fs_err::remove_file(git.dir().join(".git/FETCH_HEAD")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(ExecError::failed(e)),
        _ => Ok(()),
    }
}

/// Masks the credentials of URLs in git's own files, submodules' included: they become part of the image.
fn forget_credentials(git_dir: &Path) -> std::io::Result<()> {
    for entry in WalkDir::new(git_dir).follow_links(false).into_iter().filter_map(Result::ok) {
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
    let walk = WalkDir::new(tree).follow_links(false).into_iter();
    let found: Vec<_> = walk
        .filter_map(Result::ok)
        .filter(|e| e.file_name() == ".git" && (e.depth() == 1 || e.file_type().is_file()))
        .map(DirEntry::into_path)
        .collect();
    for path in found {
        match path.is_dir() && !path.is_symlink() {
            true => fs_err::remove_dir_all(path)?,
            false => fs_err::remove_file(path)?,
        }
    }
    Ok(())
}

/// Gives everything below and including `tree` one modification time, in seconds since 1970.
fn set_times(tree: &Path, time: i64) -> std::io::Result<()> {
    let stamp = Timespec { tv_sec: time, tv_nsec: 0 };
    let times = Timestamps { last_access: stamp, last_modification: stamp };
    for entry in WalkDir::new(tree).follow_links(false) {
        utimensat(CWD, entry?.path(), &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// A subdirectory, reached without any symbolic link.
pub(super) fn below(top: &Path, subdir: &str) -> Result<PathBuf, GitError> {
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

    #[test]
    fn every_file_gets_the_time() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("d")).unwrap();
        fs_err::write(dir.path().join("d/f"), "").unwrap();
        fs_err::os::unix::fs::symlink("nowhere", dir.path().join("l")).unwrap();
        set_times(dir.path(), -1_000_000_000).unwrap();
        for path in ["", "d", "d/f", "l"] {
            let found = fs_err::symlink_metadata(dir.path().join(path)).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::mtime(&found), -1_000_000_000, "{path}");
        }
    }
}
