//! What can go wrong between us and GitHub's cache service.

/// A request to GitHub's cache service that failed. No variant holds a token or a signed URL.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum ActionsError {
    /// A token that says nothing that is needed.
    #[error("the token for github actions cache cannot be used: {0}")]
    Token(&'static str),
    /// The token names no branch that may be written.
    #[error("the token for github actions cache allows no writing")]
    ReadOnly,
    /// Others began to write all entries that would be next, and never ended.
    #[error("github actions cache keeps all entries of `{0}` for others")]
    Abandoned(String),
    /// There is no such entry.
    #[error("github actions cache has no entry `{0}`")]
    Missing(String),
    /// The service cannot be reached, or broke off.
    #[error("github actions cache cannot be reached for {what}: {reason}")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// Why not.
        reason: String,
    },
    /// Too many requests, for longer than was to be waited.
    #[error("github actions cache limits the rate of requests for {what}: maximum timeout reached")]
    RateLimited {
        /// What was asked for.
        what: String,
    },
    /// Any other answer than the expected.
    #[error("github actions cache answered {status} to {what}: {reason}")]
    Status {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The service's own words.
        reason: String,
    },
    /// An answer that means nothing.
    #[error("github actions cache sent a malformed answer to {what}: {reason}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry is larger than anybody should have written it.
    #[error("an entry of github actions cache is larger than {limit} bytes")]
    TooLarge {
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// An entry that broke off and could not be taken up again.
    #[error("an entry of github actions cache cannot be read")]
    Broken(#[source] std::io::Error),
    /// What is to be stored cannot be read.
    #[error("cannot read what is to be stored")]
    Source(#[source] std::io::Error),
}
