//! What can go wrong with a tree.

use super::node::NodeId;
use super::path::TreePath;
use super::store::NodeStoreError;

/// A tree that cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] NodeStoreError),
    /// A node that another one names is not stored.
    #[error("tree node `{0:?}` is missing")]
    Missing(NodeId),
    /// A node's bytes are not what its id says, or no node at all.
    #[error("tree node `{0:?}` is damaged")]
    Damaged(NodeId),
    /// A path goes through something that is no directory.
    #[error("`{0}` is not a directory")]
    NotADirectory(TreePath),
    /// A path does not exist.
    #[error("`{0}` does not exist")]
    NotFound(TreePath),
    /// Too many symbolic links on the way (40, as the kernel's limit).
    #[error("too many levels of symbolic links in `{}`", .0.escape_ascii())]
    TooManyLinks(Vec<u8>),
    /// A path that is longer than trees and the kernel take.
    #[error("a path is longer than 4095 bytes or 512 components: `{0}`")]
    PathTooLong(TreePath),
    /// A path with a NUL byte or, where it has to be canonical, with odd components.
    #[error(transparent)]
    Path(#[from] super::path::InvalidPath),
}
