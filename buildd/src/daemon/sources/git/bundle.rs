//! Bundles: files that hold commits, and names for them (gitformat-bundle(5)). One may stand in for the remote, and one may
//! be what is made of it.

use std::path::Path;

use solver::ExecError;

use super::refs::names;
use super::request::{Request, is_commit};
use super::{GitError, Pinned, checkout, run::Git};
use crate::daemon::sources::image::blob::Locator;

/// What the file is called that a source gives.
pub(super) const FILE: &str = "bundle";
/// What names the commit in a bundle if the source has no name for it. Who takes it knows the commit.
const NAMELESS: &str = "refs/heads/main";

/// The name that the commit gets in a bundle: a tag stays one, anything else becomes a branch.
pub(super) fn tip(reference: &str) -> String {
    if reference.is_empty() || is_commit(reference) {
        return NAMELESS.to_owned();
    }
    if reference.starts_with("refs/tags/") {
        return reference.to_owned();
    }
    let name = reference.strip_prefix("refs/").unwrap_or(reference);
    format!("refs/heads/{}", name.strip_prefix("heads/").unwrap_or(name))
}

/// Makes a bundle of the commit and its history; `git` runs in an empty directory.
pub(super) async fn create(pinned: &Pinned, file: &Path, git: &Git<'_>) -> Result<(), ExecError> {
    checkout::fetch(pinned, git).await?;
    let tip = tip(&pinned.request.reference);
    git.run(&["update-ref", &tip, &pinned.found.commit]).await?;
    // More threads pack differently each time.
    git.run(&["-c", "pack.threads=1", "bundle", "create", "--quiet", text(file)?, &tip]).await.map(drop)
}

/// Makes a repository with what a bundle holds, without names.
pub(super) async fn unpack(file: &Path, locator: &Locator, git: &Git<'_>) -> Result<(), ExecError> {
    let heads = heads(file, git).await?;
    let Some((object, _)) = heads.lines().find_map(|line| line.split_once(' ')) else {
        return Err(ExecError::failed(GitError::EmptyBundle(locator.reference.to_string())));
    };
    let format = if object.len() == 64 { "sha256" } else { "sha1" };
    let format = format!("--object-format={format}");
    git.run(&["init", "--quiet", "--initial-branch=master", &format, "."]).await?;
    git.run(&["bundle", "unbundle", text(file)?]).await.map(drop)
}

/// What a bundle says of the name that is wanted, as `ls-remote` would; `git` runs in an empty directory.
pub(super) async fn list(request: &Request, git: &Git<'_>) -> Result<String, ExecError> {
    let (Some(file), Some(locator)) = (git.bundle(), &request.bundle) else { return Ok(String::new()) };
    unpack(file, locator, git).await?;
    let short = request.checksum.as_deref().filter(|_| request.reference.is_empty());
    if let Some(short) = short {
        let commit = git.run(&["rev-parse", "--verify", &format!("{short}^{{commit}}")]).await?;
        return Ok(format!("{}\tHEAD\n", commit.trim()));
    }
    let wanted = names(&request.reference);
    let mut listing = String::new();
    for (object, name) in heads(file, git).await?.lines().filter_map(|line| line.split_once(' ')) {
        if !wanted.iter().any(|wanted| wanted == name.trim()) {
            continue;
        }
        let commit = git.run(&["rev-parse", "--verify", &format!("{object}^{{commit}}")]).await?;
        listing.push_str(&format!("{object}\t{name}\n"));
        if commit.trim() != object {
            listing.push_str(&format!("{}\t{name}^{{}}\n", commit.trim()));
        }
    }
    Ok(listing)
}

/// The names in a bundle: lines of object, blank and name.
async fn heads(file: &Path, git: &Git<'_>) -> Result<String, ExecError> {
    git.run(&["bundle", "list-heads", text(file)?]).await
}

/// A path of the daemon's own, for git's command line.
fn text(path: &Path) -> Result<&str, ExecError> {
    path.to_str().ok_or_else(|| {
        let value = path.to_string_lossy().into_owned();
        ExecError::failed(GitError::Invalid { what: "path", value })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tips() {
        for (reference, want) in [
            ("", "refs/heads/main"),
            ("0123456789abcdef0123456789abcdef01234567", "refs/heads/main"),
            ("master", "refs/heads/master"),
            ("refs/heads/a/b", "refs/heads/a/b"),
            ("heads/v1", "refs/heads/v1"),
            ("refs/tags/v1", "refs/tags/v1"),
        ] {
            assert_eq!(tip(reference), want, "{reference}");
        }
    }
}
