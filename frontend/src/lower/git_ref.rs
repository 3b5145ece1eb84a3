//! Git repositories as sources: `https://host/repo.git#ref:dir` and `?ref=…&subdir=…` (`frontend/dockerfile/dfgitutil`).

use std::collections::BTreeMap;

use solver::op::{SourceOp, attr};
use thiserror::Error;

use crate::lower::path;
use crate::lower::url::{Url, decode};

/// What is wrong with a text that means a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GitRefError {
    /// A query key without its value.
    #[error("query \"{0}\" has no value")]
    NoValue(String),
    /// A query key more than once.
    #[error("query \"{0}\" has multiple values")]
    Repeated(String),
    /// A query key that is none.
    #[error("unexpected query \"{0}\"")]
    UnknownKey(String),
    /// Two answers to one question.
    #[error("{what} conflicts: \"{first}\" vs \"{second}\"")]
    Conflict {
        /// `ref` or `subdir`.
        what: &'static str,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// Both `branch` and `tag`.
    #[error("branch conflicts with tag")]
    BranchAndTag,
    /// An `mtime` that is none.
    #[error("invalid mtime value: \"{0}\" (must be \"checkout\" or \"commit\")")]
    InvalidMtime(String),
    /// A value that its key does not take.
    #[error("invalid {key} value: \"{value}\"")]
    InvalidValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
}

/// A git repository that is a build context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    written: String,
    git: GitRef,
}

impl GitSource {
    /// Reads a text; `None` when it does not mean a git repository. `commit_times` dates files by their commit.
    ///
    /// # Errors
    /// It does, but its query is wrong.
    pub fn parse(text: &str, keep_git_dir: bool, commit_times: bool) -> Result<Option<Self>, GitRefError> {
        let Some(mut git) = GitRef::parse(text)? else { return Ok(None) };
        if keep_git_dir {
            git.keep_git_dir = Some(true);
        }
        if commit_times && git.mtime.is_empty() {
            "commit".clone_into(&mut git.mtime);
        }
        Ok(Some(Self { written: text.to_owned(), git }))
    }

    /// As it was given.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// The source operation that fetches it.
    pub fn source(&self) -> SourceOp {
        self.git.source()
    }
}

/// A repository and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct GitRef {
    /// What git is told to fetch from.
    pub(crate) remote: String,
    /// `host/path`, the same for all protocols.
    identity: String,
    /// Whether git goes over SSH.
    ssh: bool,
    /// Branch, tag or commit; empty is the default branch.
    pub(crate) reference: String,
    /// Directory within the repository; empty is all of it.
    pub(crate) subdir: String,
    /// The commit that it has to be.
    pub(crate) checksum: String,
    /// `keep-git-dir`, when given.
    pub(crate) keep_git_dir: Option<bool>,
    /// `submodules`, when given.
    pub(crate) submodules: Option<bool>,
    /// `mtime`; empty is as checked out.
    pub(crate) mtime: String,
    /// Fetch the checksum's commit without asking what the reference is.
    pub(crate) fetch_by_commit: bool,
    /// `github.com/…`, which could as well be a path.
    pub(crate) like_a_path: bool,
}

impl GitRef {
    /// Reads a text; `None` when it does not mean a git repository.
    ///
    /// # Errors
    /// It does, but its query is wrong.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, GitRefError> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let like_a_path = text.starts_with("github.com/");
        let whole = if like_a_path { format!("https://{text}") } else { text.to_owned() };
        let Some(mut url) = Url::parse(&whole).or_else(|| Url::parse_scp(&whole)) else { return Ok(None) };
        match url.scheme.as_str() {
            "http" | "https" if !like_a_path && !url.path.ends_with(".git") => return Ok(None),
            "http" | "https" | "git" | "ssh" => {}
            _ => return Ok(None),
        }
        let remote = url.without_query();
        let (reference, subdir) = url.fragment.split_once(':').unwrap_or((&url.fragment, ""));
        let mut git = Self {
            remote: if like_a_path { remote.replacen("https://", "", 1) } else { remote },
            identity: format!("{}{}", url.host, path::join("/", &url.path)),
            ssh: url.scheme == "ssh",
            reference: reference.to_owned(),
            subdir: path::join("/", subdir).trim_start_matches('/').to_owned(),
            like_a_path,
            ..Self::default()
        };
        git.load_query(&std::mem::take(&mut url.query))?;
        Ok(Some(git))
    }

    fn load_query(&mut self, query: &str) -> Result<(), GitRefError> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(decode(key, true)).or_default().push(decode(value, true));
        }
        let (mut tag, mut branch) = (String::new(), String::new());
        for (key, mut value) in values {
            if value.len() > 1 {
                return Err(GitRefError::Repeated(key));
            }
            let value = value.pop().unwrap_or_default();
            let is_switch = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_switch {
                return Err(GitRefError::NoValue(key));
            }
            match key.as_str() {
                "ref" => agree("ref", &mut self.reference, value)?,
                "subdir" => agree("subdir", &mut self.subdir, value)?,
                "tag" => tag = prefixed("refs/tags/", value),
                "branch" => branch = prefixed("refs/heads/", value),
                "checksum" | "commit" => self.checksum = value,
                "keep-git-dir" => self.keep_git_dir = Some(switch(key, value)?),
                "submodules" => self.submodules = Some(switch(key, value)?),
                "fetch-by-commit" => self.fetch_by_commit = switch(key, value)?,
                "mtime" if matches!(value.as_str(), "checkout" | "commit") => self.mtime = value,
                "mtime" => return Err(GitRefError::InvalidMtime(value)),
                _ => return Err(GitRefError::UnknownKey(key)),
            }
        }
        if !tag.is_empty() && !branch.is_empty() {
            return Err(GitRefError::BranchAndTag);
        }
        for full in [tag, branch].into_iter().filter(|full| !full.is_empty()) {
            agree("ref", &mut self.reference, full)?;
        }
        Ok(())
    }

    /// The source operation that fetches it.
    pub(crate) fn source(&self) -> SourceOp {
        let mut identifier = format!("git://{}", self.identity);
        if !self.reference.is_empty() || !self.subdir.is_empty() {
            identifier.push_str(&format!("#{}", self.reference));
            if !self.subdir.is_empty() {
                identifier.push_str(&format!(":{}", self.subdir));
            }
        }
        let remote = if self.like_a_path { format!("https://{}", self.remote) } else { self.remote.clone() };
        let mut attrs = vec![
            (attr::FULL_REMOTE_URL, remote.as_str()),
            (attr::GIT_AUTH_TOKEN_SECRET, "GIT_AUTH_TOKEN"),
            (attr::GIT_AUTH_HEADER_SECRET, "GIT_AUTH_HEADER"),
        ];
        let switches = [
            (attr::KEEP_GIT_DIR, self.keep_git_dir == Some(true)),
            (attr::GIT_SKIP_SUBMODULES, self.submodules == Some(false)),
            (attr::GIT_FETCH_BY_COMMIT, self.fetch_by_commit),
        ];
        attrs.extend(switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "true")));
        if self.ssh {
            attrs.push((attr::GIT_MOUNT_SSH_SOCK, "default"));
        }
        for (name, value) in [(attr::GIT_CHECKSUM, &self.checksum), (attr::GIT_MTIME, &self.mtime)] {
            if !value.is_empty() {
                attrs.push((name, value));
            }
        }
        SourceOp { identifier, attrs: attrs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect() }
    }
}

fn switch(key: String, value: String) -> Result<bool, GitRefError> {
    if value.is_empty() {
        return Ok(true);
    }
    crate::number::boolean(&value).ok_or(GitRefError::InvalidValue { key, value })
}

fn prefixed(prefix: &str, value: String) -> String {
    if value.starts_with(prefix) { value } else { format!("{prefix}{value}") }
}

/// Sets what is not set, and refuses another value.
fn agree(what: &'static str, slot: &mut String, value: String) -> Result<(), GitRefError> {
    if !slot.is_empty() && *slot != value {
        return Err(GitRefError::Conflict { what, first: slot.clone(), second: value });
    }
    *slot = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_repositories_from_files() {
        for text in ["a.git", "./a.git", "https://x/y.tar", "github", "ftp://x/y.git", "C:/x", "a b"] {
            assert_eq!(GitRef::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn identifiers() {
        for (text, identifier, remote) in [
            (
                "https://github.com/a/b.git#v1:d/e",
                "git://github.com/a/b.git#v1:d/e",
                "https://github.com/a/b.git",
            ),
            ("git@github.com:a/b.git", "git://github.com/a/b.git", "git@github.com:a/b.git"),
            ("ssh://git@h:22/a.git?branch=x", "git://h:22/a.git#refs/heads/x", "ssh://git@h:22/a.git"),
            ("git://h/a?subdir=s", "git://h/a#:s", "git://h/a"),
            ("github.com/a/b", "git://github.com/a/b", "https://github.com/a/b"),
        ] {
            let source = GitRef::parse(text).unwrap().unwrap().source();
            assert_eq!(
                (source.identifier.as_str(), source.attrs["git.fullurl"].as_str()),
                (identifier, remote),
                "{text}"
            );
        }
    }

    #[test]
    fn wrong_queries() {
        for (query, message) in [
            ("checksum=", r#"query "checksum" has no value"#),
            ("ref=a&ref=b", r#"query "ref" has multiple values"#),
            ("x=1", r#"unexpected query "x""#),
            ("tag=a&branch=b", "branch conflicts with tag"),
            ("submodules=maybe", r#"invalid submodules value: "maybe""#),
            ("ref=a&tag=b", r#"ref conflicts: "a" vs "refs/tags/b""#),
        ] {
            assert_eq!(GitRef::parse(&format!("https://h/a.git?{query}")).unwrap_err().to_string(), message);
        }
    }
}
