//! What can go wrong with a context.

use std::io;

use solver::pattern::PatternError;

use crate::tree::{TreeError, TreePath};

/// A context that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// A system call on an object of the context failed; the user's own files, so the user's to mend.
    #[error("cannot {action} `{path}` of the build context")]
    Io {
        /// What was tried, such as `open`.
        action: &'static str,
        /// Which object.
        path: TreePath,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The wanted paths are no valid patterns.
    #[error("invalid include pattern")]
    Pattern(#[from] PatternError),
    /// The content tree cannot be stored.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The stat cache failed.
    #[error(transparent)]
    StatCache(#[from] super::stat_cache::StatCacheError),
    /// The walk was cancelled.
    #[error("reading the build context was cancelled")]
    Cancelled,
}

impl ContextError {
    pub(super) fn io(action: &'static str, path: &TreePath, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.clone(), source: source.into() }
    }
}
