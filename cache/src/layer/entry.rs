//! The entries of a layer: what its directory holds, as data.

use solver::LayerId;

use super::error::LayerError;
use crate::tree::{Node, NodeId, TreePath};

/// What a layer does at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// What is below is gone.
    Whiteout,
    /// An object, new or instead of what was there; a directory over a directory keeps the names below.
    Put {
        /// The object as trees know it.
        node: Node,
        /// Its real modification time in nanoseconds since 1970.
        mtime: i64,
    },
}

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry {
    /// Where; never the root.
    pub path: TreePath,
    /// What.
    pub change: Change,
}

/// All entries of a layer in walk order, each path once, every parent directory present.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entries(Vec<LayerEntry>);

impl Entries {
    /// The entries, in walk order.
    pub fn iter(&self) -> std::slice::Iter<'_, LayerEntry> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entry of one path.
    pub fn get(&self, path: &TreePath) -> Option<&LayerEntry> {
        todo!()
    }

    /// The layer's portable id: SHA-256 of [`Self::encode`] in a domain of its own.
    pub fn layer_id(&self) -> LayerId {
        todo!()
    }

    /// The canonical bytes, to be kept beside the layer's directory.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`LayerError::DamagedEntries`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayerError> {
        todo!()
    }
}

/// A layer whose directory is in normal form and complete; the caller renames it to its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedLayer {
    /// Portable id.
    pub id: LayerId,
    /// What it holds.
    pub entries: Entries,
    /// The tree of parent and layer together: the content digest of the output.
    pub root: NodeId,
    /// Bytes on disk (allocated blocks).
    pub disk_bytes: u64,
}
