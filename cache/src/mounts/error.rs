//! What goes wrong with a mount that travels.

use std::io;

use crate::context::{ContextError, StatCacheError};
use crate::tree::TreePath;

/// A mount could not be read or put together.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A file operation failed.
    #[error("cannot {action} `{}`", .path.as_bytes().escape_ascii())]
    Io {
        /// What was done, as in `cannot {action}`.
        action: &'static str,
        /// In the mount.
        path: TreePath,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file is not what it was when it was listed.
    #[error("`{}` changed while it was read", .0.as_bytes().escape_ascii())]
    Changed(TreePath),
    /// No such path can be used.
    #[error("the path `{}…` is too long", .0.as_bytes()[..64.min(.0.as_bytes().len())].escape_ascii())]
    TooLong(TreePath),
    /// It has more files than a list may name.
    #[error("it has too many files")]
    TooLarge,
    /// A list or a pack is not what it should be.
    #[error("{0}")]
    Damaged(&'static str),
    /// A file could not be hashed.
    #[error(transparent)]
    Hash(#[from] ContextError),
    /// What is known of files could not be kept.
    #[error(transparent)]
    StatCache(#[from] StatCacheError),
    /// A list or a pack could not be compressed.
    #[error("cannot compress")]
    Compress(#[source] io::Error),
    /// A pack could not be kept until it is sent.
    #[error("cannot write a pack")]
    Spool(#[source] io::Error),
    /// Nobody wants it any more.
    #[error("canceled")]
    Canceled,
}

impl MountError {
    /// For `map_err`.
    pub(super) fn io<E: Into<io::Error>>(action: &'static str, path: &TreePath) -> impl Fn(E) -> Self {
        move |source| Self::Io { action, path: path.clone(), source: source.into() }
    }
}
