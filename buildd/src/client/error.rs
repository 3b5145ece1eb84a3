//! What can go wrong on the client's side.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Address;
use crate::causes::causes;
use crate::csv::OpenQuote;

/// A command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// An address that is neither `unix://` nor `tcp://`.
    #[error("invalid address `{0}`: want `unix:///PATH` or `tcp://HOST:PORT`")]
    Address(String),
    /// Nothing answers at the address.
    #[error("cannot connect to the daemon at `{address}`: {reason}")]
    Connect {
        /// Where.
        address: Address,
        /// Why, causes included.
        reason: String,
    },
    /// The daemon stopped answering, or what answers there is none.
    #[error("the connection to the daemon at `{address}` broke: {reason}")]
    Lost {
        /// Where.
        address: Address,
        /// Why, causes included.
        reason: String,
    },
    /// Certificates that give no TLS.
    #[error("{}", causes(.0))]
    Tls(#[from] crate::tls::TlsError),
    /// The daemon answered with an error.
    #[error("{}", .0.message())]
    Daemon(#[source] Box<tonic::Status>),
    /// The build failed.
    #[error("failed to solve: {}", .0.message())]
    Build(#[source] Box<tonic::Status>),
    /// A file or directory of the user.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An OCI layout, or a name of an image.
    #[error(transparent)]
    Image(#[from] cache::oci::Error),
    /// The terminal or a pipe.
    #[error("cannot write output: {0}")]
    Print(#[from] io::Error),
    /// A daemon was started, and left or does not answer.
    #[error("the daemon did not start; its log is `{}`{}", log.display(), last_line(.tail))]
    Start {
        /// Its log.
        log: PathBuf,
        /// What the log ends with.
        tail: String,
    },
    /// Another process starts a daemon and does not finish.
    #[error("waited {0:?} for another process that is starting the daemon")]
    Starting(Duration),
    /// The user's own daemon is of another version, which this one cannot work with, and stays.
    #[error("the daemon is of version {version}, which cannot be used, and stays: {reason}")]
    OtherVersion {
        /// Its version.
        version: String,
        /// Why it stays.
        reason: String,
    },
    /// The terminal was closed.
    #[error("the terminal has gone")]
    HungUp,
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Wrong arguments that clap cannot see.
    #[error("{0}")]
    Usage(String),
}

fn last_line(tail: &str) -> String {
    if tail.is_empty() { String::new() } else { format!(": {tail}") }
}

impl ClientError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// The same error; one of the connection, which no daemon answered with, names the address.
    pub(crate) fn with_address(self, address: Address) -> Self {
        let (Self::Daemon(status) | Self::Build(status)) = &self else { return self };
        match std::error::Error::source(status) {
            Some(cause) if cause.is::<tonic::transport::Error>() => {
                Self::Lost { address, reason: causes(cause) }
            }
            _ => self,
        }
    }
}

impl From<OpenQuote> for ClientError {
    fn from(error: OpenQuote) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<tonic::Status> for ClientError {
    fn from(status: tonic::Status) -> Self {
        Self::Daemon(Box::new(status))
    }
}
