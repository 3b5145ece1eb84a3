//! What can go wrong with a layer.

use std::io;

use crate::tree::{TreeError, TreePath};
use crate::view::ViewError;

/// A layer that cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A system call on an object of the layer failed.
    #[error("cannot {action} `{path}` of the layer")]
    Io {
        /// What was tried, such as `create` or `read`.
        action: &'static str,
        /// Which object.
        path: TreePath,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The parent's tree cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The parent's directories cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The archive is no acceptable tar.
    #[error(transparent)]
    Tar(#[from] super::tar_in::TarError),
    /// The stream that is read or written failed.
    #[error("cannot {action} the layer's tar stream")]
    Stream {
        /// `read` or `write`.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Stored entries are not what was written.
    #[error("the layer's entries are damaged")]
    DamagedEntries,
    /// A directory is in the way of something else.
    #[error("`{0}` is a directory")]
    IsADirectory(TreePath),
    /// Something else is in the way of a directory.
    #[error("`{0}` is not a directory")]
    NotADirectory(TreePath),
    /// The path does not exist.
    #[error("`{0}` does not exist")]
    NotFound(TreePath),
    /// The directory holds what normal form does not have and cannot be turned into it.
    #[error("`{path}` has the overlay mark `{mark}`, which the mount options rule out")]
    OverlayMark {
        /// Where.
        path: TreePath,
        /// Name of the extended attribute.
        mark: String,
    },
    /// The archive is larger than allowed.
    #[error("the layer has more than {limit} {what}")]
    TooLarge {
        /// `bytes` or `entries`.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A tar stream is not that of the layer that it is said to be.
    #[error("`{0}` of the stream is not that of the layer")]
    Other(TreePath),
    /// The file system did not take an object as it was.
    #[error("`{0}` cannot be made here as it was")]
    Unfaithful(TreePath),
    /// A file changed while it was written to a tar stream.
    #[error("`{0}` changed while it was read")]
    Changed(TreePath),
}
