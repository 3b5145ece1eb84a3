//! The trees of a store: loading and caching of nodes.

use std::sync::Arc;

use super::error::TreeError;
use super::node::{Node, NodeId};
use super::store::NodeStore;

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// The name, one component.
    pub name: Box<[u8]>,
    /// The object.
    pub node: Node,
}

/// All trees of one node store, with a small cache of decoded nodes.
#[derive(Debug)]
pub struct Trees {
    store: Arc<dyn NodeStore>,
}

impl Trees {
    /// Opens the trees of `store`.
    pub fn new(store: Arc<dyn NodeStore>) -> Self {
        Self { store }
    }

    /// The tree of an empty file system; it is never stored.
    pub fn empty() -> NodeId {
        todo!()
    }

    /// Whether the node of `root` itself is stored.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn contains(&self, root: &NodeId) -> Result<bool, TreeError> {
        todo!()
    }
}
