//! What can go wrong with a view.

use std::io;

use crate::tree::{InvalidPath, TreePath};

/// A chain of layers that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A system call failed.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which object.
        path: TreePath,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A layer's directory cannot be opened.
    #[error("cannot open the layer directory `{}`", .dir.display())]
    Layer {
        /// Which.
        dir: std::path::PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A path does not exist.
    #[error("`{0}` does not exist")]
    NotFound(TreePath),
    /// A path goes through something that is no directory.
    #[error("`{0}` is not a directory")]
    NotADirectory(TreePath),
    /// A regular file is wanted.
    #[error("`{0}` is not a regular file")]
    NotAFile(TreePath),
    /// A file is larger than the caller takes.
    #[error("`{path}` is larger than {limit} bytes")]
    TooLarge {
        /// Which.
        path: TreePath,
        /// The limit in bytes.
        limit: u64,
    },
    /// Too many symbolic links on the way (40, as the kernel's limit).
    #[error("too many levels of symbolic links in `{}`", .0.escape_ascii())]
    TooManyLinks(Vec<u8>),
    /// A path with a NUL byte.
    #[error(transparent)]
    Path(#[from] InvalidPath),
}
