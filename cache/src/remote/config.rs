//! The document that describes a cache: `application/vnd.buildkit.cacheconfig.v0`.

use serde::{Deserialize, Serialize};
use solver::Digest;

/// A cache: layers, and records that point to each other and to layers by index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheConfig {
    /// The layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<ConfigLayer>,
    /// The keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<ConfigRecord>,
}

/// A layer on those below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigLayer {
    /// The blob.
    pub blob: Digest,
    /// Index of the layer below; -1 for none. Left out for 0, as Go leaves zeros out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parent: i64,
}

/// A key, how it follows from other keys, and what it gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRecord {
    /// Results that end in a layer and hold all below it.
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<ConfigResult>,
    /// Results that name each of their layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<ConfigChain>,
    /// The key of the operation by itself, with its output.
    pub digest: Option<Digest>,
    /// By input of the operation: the records that it may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<ConfigInput>>,
}

/// A result by its topmost layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigResult {
    /// Index of the topmost layer.
    pub layer: i64,
    /// RFC 3339.
    #[serde(rename = "createdAt", default)]
    pub created_at: String,
}

/// A result by all its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChain {
    /// Indexes, lowest first.
    pub layers: Vec<i64>,
    /// RFC 3339.
    #[serde(rename = "createdAt", default)]
    pub created_at: String,
}

/// One of the records that an input may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigInput {
    /// Which part of it is used; empty is all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Index of the record.
    pub link: i64,
}

/// A config that means nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or not of this form.
    #[error("malformed cache config")]
    Json(#[from] serde_json::Error),
    /// An index that leads nowhere.
    #[error("the cache config has no {what} {index}")]
    Index {
        /// Of what.
        what: &'static str,
        /// The index.
        index: i64,
    },
    /// Records or layers that are their own inputs.
    #[error("{what} {index} of the cache config leads to itself")]
    Loop {
        /// Of what.
        what: &'static str,
        /// Where the loop was found.
        index: i64,
    },
    /// A record without a digest, or with an input that nothing satisfies.
    #[error("record {0} of the cache config is incomplete")]
    Incomplete(usize),
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}
