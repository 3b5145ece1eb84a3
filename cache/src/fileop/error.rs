//! What can go wrong with a file operation.

use std::io;

use solver::pattern::PatternError;

use crate::context::ContextError;
use crate::layer::{LayerError, TarError};
use crate::pattern::BadPattern;
use crate::tree::{TreeError, TreePath};
use crate::view::ViewError;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum FileOpError {
    /// The operation itself is malformed.
    #[error("invalid file operation: {0}")]
    Invalid(&'static str),
    /// An action failed. The message is the action's alone, as BuildKit's is.
    #[error("{source}")]
    Action {
        /// Which, counted from 0.
        action: usize,
        /// Why.
        #[source]
        source: ActionError,
    },
    /// A layer cannot be started or ended.
    #[error(transparent)]
    Layer(#[from] LayerError),
}

/// An action that failed, in BuildKit's words where tools or users know them.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// A path that has to exist does not; the daemon can suggest others.
    #[error("{action} {path}: no such file or directory")]
    NotFound {
        /// The system call that BuildKit names, such as `lstat`.
        action: &'static str,
        /// Which path, in the file system it was looked for.
        path: TreePath,
    },
    /// A source that was looked up for the cache key does not exist.
    #[error("{path:?}: not found")]
    SourceNotFound {
        /// The source as written, made absolute.
        path: String,
    },
    /// No name matches a wildcard.
    #[error("{pattern} not found")]
    NoMatch {
        /// The source as written, made absolute.
        pattern: String,
    },
    /// Something that is no directory is in the way.
    #[error("{action} {path}: not a directory")]
    NotADirectory {
        /// Such as `mkdir`.
        action: &'static str,
        /// What is in the way.
        path: TreePath,
    },
    /// A directory is in the way of a file that is written.
    #[error("open {0}: is a directory")]
    IsADirectory(TreePath),
    /// Something exists already.
    #[error("{action} {path}: file exists")]
    Exists {
        /// Such as `symlink`.
        action: &'static str,
        /// Which path.
        path: TreePath,
    },
    /// A directory is copied onto something else.
    #[error("cannot copy to non-directory: {0}")]
    DirOntoFile(TreePath),
    /// Something else is copied onto a directory.
    #[error("cannot replace to directory {0} with file")]
    FileOntoDir(TreePath),
    /// `rm` of the root.
    #[error("rmPath: invalid empty path")]
    RemoveRoot,
    /// A user or group name without a file system to look it up in (`COPY --link --chown=NAME`).
    #[error("invalid user index: -1")]
    NoUserFile,
    /// `/etc/passwd` or `/etc/group` is no regular file.
    #[error("{0} is not a regular file")]
    OddUserFile(TreePath),
    /// Too many symbolic links on the way.
    #[error("too many links in {}", .0.escape_ascii())]
    TooManyLinks(Vec<u8>),
    /// The symbolic mode is none.
    #[error(transparent)]
    Mode(#[from] super::mode::InvalidMode),
    /// A wildcard is malformed.
    #[error(transparent)]
    Wildcard(#[from] BadPattern),
    /// An include or exclude pattern is malformed.
    #[error("invalid {list}: {source}")]
    Pattern {
        /// `includepatterns` or `excludepatterns`.
        list: &'static str,
        /// Why.
        #[source]
        source: PatternError,
    },
    /// An archive that is unpacked ends too early.
    #[error("unexpected EOF")]
    ArchiveCut,
    /// An archive that is unpacked is damaged, or is larger than allowed.
    #[error("cannot unpack {path}")]
    Archive {
        /// The archive.
        path: TreePath,
        /// Why not.
        #[source]
        source: TarError,
    },
    /// An archive would unpack to more than is allowed.
    #[error("{path} unpacks to more than {limit} {what}")]
    ArchiveTooLarge {
        /// The archive.
        path: TreePath,
        /// `bytes` or `entries`.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A hard link of an archive leads nowhere.
    #[error("link {target} {path}: no such file or directory")]
    LinkTarget {
        /// Where it leads, within the destination.
        target: TreePath,
        /// The new name, within the destination.
        path: TreePath,
    },
    /// A file of the context is not what it was when the context was walked: walk and key again.
    #[error("{0} of the build context changed while it was copied")]
    ContextChanged(TreePath),
    /// A file of a layer is not what the layer's tree says.
    #[error("{0} of a layer is damaged")]
    Damaged(TreePath),
    /// A path holds what no path may hold.
    #[error(transparent)]
    Path(#[from] crate::tree::InvalidPath),
    /// A file of the context cannot be read.
    #[error("open {path}")]
    Source {
        /// Which.
        path: TreePath,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The context cannot be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A tree of an input cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A chain of an input cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The new layer cannot be written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl ActionError {
    /// Whether walking the context and keying the operation again can help.
    pub fn is_context_changed(&self) -> bool {
        matches!(self, Self::ContextChanged(_))
    }
}

impl FileOpError {
    /// Whether walking the context and keying the operation again can help.
    pub fn is_context_changed(&self) -> bool {
        matches!(self, Self::Action { source, .. } if source.is_context_changed())
    }
}
