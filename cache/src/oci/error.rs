//! What can be wrong with an image's name, documents and archives.

use std::io;
use std::path::PathBuf;

use solver::Digest;
use thiserror::Error;

/// An image, or a name of one, that cannot be used as it is.
#[derive(Debug, Error)]
pub enum Error {
    /// The text is no image reference. The wording is the one that Docker's tools print.
    #[error("invalid reference format: `{input}`: {reason}")]
    Reference {
        /// What was to be parsed.
        input: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The repository part of a reference has capital letters.
    #[error("invalid reference format: repository name ({name}) must be lowercase")]
    Uppercase {
        /// The repository name, without the registry.
        name: String,
    },
    /// The text is no platform specifier.
    #[error("`{input}` is no platform: {reason}")]
    Platform {
        /// What was to be parsed.
        input: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A document is not the JSON that its type asks for.
    #[error("malformed {what}")]
    Json {
        /// Which kind of document: `manifest`, `index`, `image config`.
        what: &'static str,
        /// Where and why it failed.
        #[source]
        source: serde_json::Error,
    },
    /// A document could be read as a manifest and as an index (CVE-2021-41190).
    #[error("ambiguous manifest: it has both `{first}` and `{second}`")]
    Ambiguous {
        /// A field that only one kind of document has.
        first: &'static str,
        /// A field that only the other kind has.
        second: &'static str,
    },
    /// A document came as one media type and says it is another (CVE-2021-41190).
    #[error("manifest was sent as `{sent}` but says that it is `{stated}`")]
    MediaTypeMismatch {
        /// The Content-Type, or the media type of the descriptor that led here.
        sent: String,
        /// The document's own `mediaType`.
        stated: String,
    },
    /// The document is of a kind that is not supported.
    #[error("unsupported manifest: {reason}")]
    Unsupported {
        /// Which kind, and why not.
        reason: String,
    },
    /// A document or field is larger than allowed.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// Which kind of document.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// A blob is not what its descriptor says.
    #[error("blob `{expected}` has the content of `{actual}`")]
    DigestMismatch {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what was read.
        actual: Digest,
    },
    /// A blob has another size than its descriptor says.
    #[error("blob `{digest}` has {actual} bytes instead of {expected}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// Bytes according to the descriptor.
        expected: u64,
        /// Bytes found.
        actual: u64,
    },
    /// An archive or layout directory lacks a blob that its index leads to.
    #[error("blob `{digest}` is not in `{origin}`")]
    MissingBlob {
        /// The blob.
        digest: Digest,
        /// The archive or directory.
        origin: PathBuf,
    },
    /// An image has nothing for a platform. In BuildKit's words, which tools look for.
    #[error("no match for platform in manifest: not found: it has nothing for `{platform}`, only for {}", available.join(", "))]
    NoPlatform {
        /// The platform that was asked for.
        platform: String,
        /// The platforms that it has.
        available: Vec<String>,
    },
    /// A layout has no image of that name.
    #[error("no image `{name}` in `{origin}`")]
    MissingImage {
        /// The tag or digest that was asked for.
        name: String,
        /// The archive or directory.
        origin: PathBuf,
    },
    /// A file is no OCI layout and no Docker archive, or a damaged one.
    #[error("`{origin}` is no image archive: {reason}")]
    Layout {
        /// The archive or directory.
        origin: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Wraps an I/O error with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
