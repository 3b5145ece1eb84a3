//! What can go wrong between us and a registry.

use std::io;
use std::time::Duration;

use solver::Digest;
use thiserror::Error;

use super::CredentialsError;
use crate::oci;

/// A request to a registry that failed. No variant holds a secret or a URL with a query.
#[derive(Debug, Error)]
pub enum Error {
    /// No connection to the host: name unknown, refused, TLS failed.
    #[error("registry `{host}` cannot be reached: {reason}")]
    Unreachable {
        /// The host, with port.
        host: String,
        /// The innermost cause, in words.
        reason: String,
        /// The whole cause.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke or was misused during a request.
    #[error("registry `{host}` broke off: {reason}")]
    Broken {
        /// The host, with port.
        host: String,
        /// The innermost cause, in words.
        reason: String,
        /// The whole cause.
        #[source]
        source: reqwest::Error,
    },
    /// The host said nothing for too long.
    #[error("registry `{host}` did not answer for {} s", limit.as_secs_f32())]
    Stalled {
        /// The host, with port.
        host: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The host wants other credentials, or any.
    #[error("registry `{host}`: {reason}")]
    Unauthorized {
        /// The host, with port.
        host: String,
        /// Whether credentials are missing or were refused.
        reason: String,
    },
    /// The credentials do not allow this.
    #[error("registry `{host}` denies access to `{repository}`{}", Detail(message))]
    Denied {
        /// The host, with port.
        host: String,
        /// The repository.
        repository: String,
        /// The registry's own words.
        message: String,
    },
    /// There is no such image. In BuildKit's words, which tools look for.
    #[error("{reference}: not found")]
    ImageNotFound {
        /// The image, in full.
        reference: String,
    },
    /// There is no such blob.
    #[error("blob `{digest}` is not in `{repository}`")]
    BlobNotFound {
        /// The blob.
        digest: Digest,
        /// Registry and repository.
        repository: String,
    },
    /// Too many requests, even after waiting.
    #[error("registry `{host}` limits the rate of requests")]
    RateLimited {
        /// The host, with port.
        host: String,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    /// Any other answer than the expected.
    #[error("registry `{host}` answered {status}{}", Detail(message))]
    Status {
        /// The host, with port.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own words.
        message: String,
    },
    /// A redirect that must not be followed.
    #[error("registry `{host}` redirects in a way that is not followed: {reason}")]
    Redirect {
        /// The host, with port.
        host: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The answer is not what the protocol says.
    #[error("registry `{host}` sent a malformed answer: {reason}")]
    Protocol {
        /// The host, with port.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes came that the digest does not name.
    #[error("`{expected}` was asked for, registry `{host}` sent `{actual}`")]
    DigestMismatch {
        /// The host, with port.
        host: String,
        /// What was asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// A blob of another size than its descriptor says.
    #[error("blob `{digest}` has {expected} bytes, registry `{host}` sent {actual}")]
    SizeMismatch {
        /// The host, with port.
        host: String,
        /// The blob.
        digest: Digest,
        /// Bytes according to the descriptor.
        expected: u64,
        /// Bytes that came, at least.
        actual: u64,
    },
    /// An answer is larger than allowed.
    #[error("registry `{host}` sent {what} of more than {limit} bytes")]
    TooLarge {
        /// The host, with port.
        host: String,
        /// What it should have been.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// The document cannot be used, or has nothing for the platform.
    #[error("{reference}")]
    Document {
        /// The image, in full.
        reference: String,
        /// What is wrong with it.
        #[source]
        source: oci::Error,
    },
    /// The credentials could not be asked for.
    #[error("cannot get the credentials for `{host}`")]
    Credentials {
        /// The host, with port.
        host: String,
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// The configuration of the host cannot be used.
    #[error("registry configuration of `{host}`: {reason}")]
    Config {
        /// The host, with port.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was to be pushed cannot be read.
    #[error("cannot read blob `{digest}` to push it")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Sorts a failed exchange with `host`.
    pub(super) fn from_http(host: &str, source: reqwest::Error) -> Self {
        // A query may be a signature that lets anybody fetch the blob.
        let source = source.without_url();
        let mut cause: &dyn std::error::Error = &source;
        while let Some(next) = cause.source() {
            cause = next;
        }
        let mut reason = cause.to_string();
        if reason.starts_with("failed to lookup address information") {
            // Others look for what programs in Go say.
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            reason = format!("dial tcp: lookup {name}: no such host ({reason})");
        }
        let host = host.to_owned();
        match source.is_connect() || source.is_builder() {
            true => Self::Unreachable { host, reason, source },
            false => Self::Broken { host, reason, source },
        }
    }

    /// Whether the same request may succeed when it is made again.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::Stalled { .. } | Self::RateLimited { .. } => true,
            // A body that ends early is a broken connection in disguise.
            Self::SizeMismatch { expected, actual, .. } => actual < expected,
            // The distribution registry says that, too, of a blob that several upload at the same time.
            Self::Status { status: 400, message, .. } => message.ends_with("(DIGEST_INVALID)"),
            Self::Status { status, .. } => matches!(status, 408 | 500 | 502..=504 | 509 | 520..=529),
            _ => false,
        }
    }

    /// How long the registry asked to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether it is the absence of what was asked for.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::ImageNotFound { .. } | Self::BlobNotFound { .. })
    }

    /// Whether the host could not be reached at all.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Stalled { .. })
    }
}

/// `: text`, or nothing.
struct Detail<'a>(&'a str);

impl std::fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            "" => Ok(()),
            text => write!(f, ": {text}"),
        }
    }
}
