//! Cache records: what a vertex was found to give, and the store that keeps them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A portable layer id.
///
/// For a layer made here it is the digest of its normalised entries, times included; for a pulled layer it is
/// derived from its verified diff ID ([`LayerId::from_diff_id`]). Never a path, never a snapshot number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(pub Digest);

impl LayerId {
    /// The id of a layer that came as a tar stream with this diff ID (OCI image spec, "Layer DiffID").
    pub fn from_diff_id(diff_id: &Digest) -> Self {
        let mut h = crate::digest::Hasher::new("rbuild.layer.diffid.v1");
        h.digest(diff_id);
        Self(h.finish())
    }

    /// The 64 hex digits, fit for a file name.
    pub fn hex(&self) -> String {
        self.0.hex()
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer:{}", self.0.hex())
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A cache key: the definition key or the content key of a vertex (see [`crate::key`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub Digest);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key:{}", self.0.hex())
    }
}

/// What one output of a vertex was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRecord {
    /// Rootfs digest of the output: the root of its content tree.
    pub content: Digest,
    /// The step's own layer; `None` where the output adds nothing of its own (merge, passthrough).
    pub layer: Option<LayerId>,
}

/// What a vertex was found to give.
///
/// Invariant: the layer applied to any chain with the input's content digest gives the output's content digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// By output index.
    pub outputs: BTreeMap<u32, OutputRecord>,
    /// When the vertex was executed, in milliseconds since 1970.
    pub created_ms: u64,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
    /// Shown name of the vertex that was executed, for `du`, `explain` and humans.
    pub name: String,
}

/// By input of a vertex: what the result of a step was that it stood on. `None` for a source, which the definition tells whole.
pub type StandsOn = Vec<Option<Digest>>;

/// A further name of a record: the definition key of its vertex.
///
/// Steps of one definition may give different results, at different times and on different machines; what was made on one of them is
/// good on no other. So a name says what its record was made on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The definition key.
    pub key: Key,
    /// What it was made on.
    pub stands_on: StandsOn,
}

/// A record that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The record.
    pub record: Record,
    /// What it was made on, where it was found by a name.
    pub stands_on: Option<StandsOn>,
}

/// How a record is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// An ordinary miss: a record that is there meanwhile stays and is returned.
    IfAbsent,
    /// A forced execution or one after an unusable record: replaces exactly this record (`None`: none was there).
    Replace(Option<Record>),
}

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("record store: {message}")]
pub struct RecordError {
    /// What was tried, and on what.
    pub message: String,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Where records live. Keys map to records, several keys to one record.
///
/// Implementations are safe for concurrent use; a damaged entry reads as absent.
#[cfg(feature = "engine")]
#[async_trait::async_trait]
pub trait RecordStore: Send + Sync {
    /// The record behind each key, in the order of `keys`, in as few round trips as the store can.
    async fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Kept>>, RecordError>;

    /// Writes a record under `key`, makes `names` further names of what is then in force there, and returns that.
    ///
    /// Only what lies under `key` decides who wins. With [`Put::Replace`] that lost the race, the winner is returned.
    async fn put(&self, key: Key, names: &[Name], record: Record, how: Put) -> Result<Record, RecordError>;

    /// Makes `name` another name of the record behind `key`, whatever it named before; nothing happens when `key` has none.
    async fn alias(&self, name: Name, key: Key) -> Result<(), RecordError>;
}
