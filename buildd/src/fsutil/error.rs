//! What can go wrong in a transfer.

use std::io;
use std::path::PathBuf;

/// A transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A file could not be read or written here.
    #[error("`{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An include, exclude or follow pattern is malformed.
    #[error("invalid pattern: {0}")]
    Pattern(#[from] solver::pattern::PatternError),
    /// The other end reported a failure.
    #[error("error from peer: {0}")]
    Peer(String),
    /// The stream broke.
    #[error("{}", .0.message())]
    Stream(#[source] Box<tonic::Status>),
    /// The stream ended early.
    #[error("file transfer ended before it was complete")]
    Truncated,
    /// A path that leaves the tree, or is not in its shortest form.
    #[error("invalid path `{0}` in file transfer")]
    Path(String),
    /// Entries out of order, or below something that is no directory.
    #[error("entry `{0}` out of order in file transfer")]
    Order(String),
    /// A hard link to a path not sent before.
    #[error("hard link `{path}` to unknown path `{target}` in file transfer")]
    Link {
        /// The link.
        path: String,
        /// What it points at.
        target: String,
    },
    /// A packet that brings too much at once.
    #[error("packet of {0} bytes in file transfer")]
    Large(usize),
    /// More files at the same time than any sender sends.
    #[error("more than {0} files under way at a time in file transfer")]
    Open(usize),
    /// A number that stands for no file that could be asked for.
    #[error("invalid file id {0} in file transfer")]
    Id(u32),
    /// A blocking task was lost, which happens only at shutdown.
    #[error("file transfer cancelled")]
    Cancelled,
}

impl TransferError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// The whole chain of causes in one line.
    pub(crate) fn full(&self) -> String {
        match self {
            Self::Io { path, source } => format!("{}: {source}", path.display()),
            other => other.to_string(),
        }
    }
}

impl From<TransferError> for tonic::Status {
    fn from(err: TransferError) -> Self {
        match err {
            TransferError::Stream(status) => *status,
            other => Self::unknown(other.full()),
        }
    }
}
