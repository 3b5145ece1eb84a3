//! Where directory nodes are kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::node::NodeId;

/// A failure of the storage below a tree.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} tree nodes")]
pub struct NodeStoreError {
    /// `read` or `write`.
    pub action: &'static str,
    /// What the storage said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Storage of content-addressed directory nodes.
///
/// Invariants: a node never changes, so putting it twice is harmless; after `put` returns, `get` finds each
/// node. The store need not verify: readers check a node against its id.
pub trait NodeStore: Send + Sync + std::fmt::Debug {
    /// Reads the encoding of a node; `None` when it is not stored.
    ///
    /// # Errors
    /// When the storage fails.
    fn get(&self, id: &NodeId) -> Result<Option<Bytes>, NodeStoreError>;

    /// Stores nodes, children before parents.
    ///
    /// # Errors
    /// When the storage fails; some of the nodes may be stored then.
    fn put(&self, nodes: Vec<(NodeId, Bytes)>) -> Result<(), NodeStoreError>;
}

/// Nodes in memory: for tests and for trees that do not outlive a request.
#[derive(Debug, Default)]
pub struct MemoryNodes(Mutex<HashMap<NodeId, Bytes>>);

impl MemoryNodes {
    /// How many nodes are stored.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodeStore for MemoryNodes {
    fn get(&self, id: &NodeId) -> Result<Option<Bytes>, NodeStoreError> {
        Ok(self.lock().get(id).cloned())
    }

    fn put(&self, nodes: Vec<(NodeId, Bytes)>) -> Result<(), NodeStoreError> {
        self.lock().extend(nodes);
        Ok(())
    }
}
