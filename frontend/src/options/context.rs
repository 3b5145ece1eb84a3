//! The main build context.

use crate::lower::{GitRefError, GitSource};

/// The main build context and what part of it counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MainContext {
    /// Where it is.
    pub spec: ContextSpec,
    /// A directory of a remote context that stands for all of it.
    pub subdir: Option<String>,
}

/// Where the main context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSpec {
    /// A directory of the client, by the name of its local source.
    Local(String),
    /// A git repository.
    Git(Box<GitSource>),
    /// A file behind a URL.
    Http {
        /// The URL.
        url: String,
        /// Whether the file is an archive, to be unpacked, and no Dockerfile. The caller finds out.
        archive: bool,
    },
    /// What another frontend handed in under the name `context`.
    Input,
}

impl Default for ContextSpec {
    fn default() -> Self {
        Self::Local(DEFAULT_NAME.to_owned())
    }
}

/// The name of the local source that the main context is, and of the attribute with a remote one.
pub(super) const DEFAULT_NAME: &str = "context";

impl ContextSpec {
    /// Reads the attribute that names a remote context; anything else is the client's directory.
    pub(super) fn parse(text: &str, keep_git_dir: bool, commit_times: bool) -> Result<Self, GitRefError> {
        if let Some(git) = GitSource::parse(text, keep_git_dir, commit_times)? {
            return Ok(Self::Git(Box::new(git)));
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Self::Http { url: text.to_owned(), archive: false });
        }
        Ok(Self::default())
    }

    /// Whether it is in a repository or behind a URL: the Dockerfile is in it then.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Git(_) | Self::Http { .. })
    }

    /// Whether it is a directory of the client: only such a context has a `.dockerignore`.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}
