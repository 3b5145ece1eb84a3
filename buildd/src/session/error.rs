//! What can go wrong with a session.

use crate::fsutil::TransferError;

/// A call to the client failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No session of this id is open, or it did not arrive in time.
    #[error("no active session for `{0}`")]
    Unknown(String),
    /// The client went away.
    #[error("the client of session `{0}` went away")]
    Lost(String),
    /// The client serves no such method.
    #[error("method `{0}` is not supported by the client")]
    Unsupported(&'static str),
    /// The client opened a session without id, or one that is open already.
    #[error("invalid session id `{0}`")]
    Id(String),
    /// A name or pattern that does not fit into a header.
    #[error(
        "`{0}` cannot be sent to the client: the header contains value with non-printable ASCII characters"
    )]
    Header(String),
    /// The client answered with an error.
    #[error("{}", .0.message())]
    Client(#[source] Box<tonic::Status>),
    /// Files could not be transferred.
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

impl SessionError {
    /// Whether the client says that it has no such thing, or nothing of the kind.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Unsupported(_) => true,
            Self::Client(status) | Self::Transfer(TransferError::Stream(status)) => {
                status.code() == tonic::Code::NotFound
            }
            _ => false,
        }
    }

    /// Whether the client says that it does no such thing.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Unsupported(_) => true,
            Self::Client(status) => {
                matches!(status.code(), tonic::Code::Unimplemented | tonic::Code::Unavailable)
            }
            _ => false,
        }
    }
}

impl From<tonic::Status> for SessionError {
    fn from(status: tonic::Status) -> Self {
        Self::Client(Box::new(status))
    }
}
