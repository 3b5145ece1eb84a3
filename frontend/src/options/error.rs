//! What is wrong with an attribute.

use thiserror::Error;

use crate::lint::CheckOptionsError;
use crate::lower::GitRefError;
use crate::parse::csv::CsvError;
use crate::platform::PlatformError;

/// A frontend attribute that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OptionError {
    /// A target platform.
    #[error("failed to parse target platform {platform}: {source}")]
    Platform {
        /// As given.
        platform: String,
        /// Why.
        source: PlatformError,
    },
    /// `image-resolve-mode`
    #[error("invalid image-resolve-mode: {0}")]
    ResolveMode(String),
    /// A list that is no CSV.
    #[error("failed to parse `{key}`: {source}")]
    List {
        /// The attribute.
        key: &'static str,
        /// Why.
        source: CsvError,
    },
    /// A host without its address.
    #[error("failed to parse additional hosts: invalid key-value pair {0}")]
    HostPair(String),
    /// An address that is none.
    #[error("failed to parse additional hosts: failed to parse IP {0}")]
    HostAddress(String),
    /// A number that is none, or out of range.
    #[error("invalid {key} value: {value}{rule}")]
    Number {
        /// The attribute.
        key: &'static str,
        /// As given.
        value: String,
        /// The rule that it breaks, with `: ` before it, or nothing.
        rule: &'static str,
    },
    /// A limit that is none.
    #[error("failed to parse ulimit: invalid ulimit argument: {0}")]
    Ulimit(String),
    /// A limit of an unknown resource.
    #[error("failed to parse ulimit: invalid ulimit type: {0}")]
    UlimitType(String),
    /// A soft limit above the hard one.
    #[error(
        "failed to parse ulimit: ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
    )]
    UlimitOrder {
        /// Soft.
        soft: i64,
        /// Hard.
        hard: i64,
    },
    /// `force-network-mode`
    #[error("invalid netmode {0}")]
    Network(String),
    /// `multi-platform`
    #[error("invalid boolean value for multi-platform: {0}")]
    MultiPlatform(String),
    /// Several platforms where only one may be.
    #[error("conflicting config: returning multiple target platforms is not allowed")]
    SeveralPlatforms,
    /// `cache-imports`
    #[error("failed to unmarshal cache-imports (\"{0}\")")]
    CacheImports(String),
    /// `BUILDKIT_DOCKERFILE_CHECK`
    #[error("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: {0}")]
    Check(#[from] CheckOptionsError),
    /// A git context.
    #[error(transparent)]
    GitContext(#[from] GitRefError),
    /// An option that BuildKit has dropped.
    #[error("support for \"{0}\" was removed in BuildKit 0.11")]
    Removed(&'static str),
}
