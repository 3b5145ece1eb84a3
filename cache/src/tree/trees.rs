//! The trees of a store: loading and caching of nodes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;

use super::codec::{Contents, DirNode, node_id};
use super::error::TreeError;
use super::node::{Node, NodeId};
use super::store::NodeStore;

/// Decoded nodes kept, counted in encoded bytes (decoded they take about twice that). More costs memory that
/// the daemon promises not to use, less makes look-ups in large trees decode the upper directories again and again.
const CACHE_BYTES: usize = 4 << 20;

/// The node of an empty directory: in no store, known to all.
static EMPTY: LazyLock<Contents> = LazyLock::new(|| DirNode::default().seal().0);

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
    cache: Mutex<Cache>,
    /// Whether a node was ever met that is not stored as it should be.
    torn: AtomicBool,
}

/// Two generations: what is used moves to the young one; when that is half of the room, the old one goes.
#[derive(Debug, Default)]
struct Cache {
    young: HashMap<NodeId, (Arc<DirNode>, usize)>,
    young_bytes: usize,
    old: HashMap<NodeId, (Arc<DirNode>, usize)>,
}

impl Cache {
    fn get(&mut self, id: &NodeId) -> Option<Arc<DirNode>> {
        if let Some((node, _)) = self.young.get(id) {
            return Some(node.clone());
        }
        let (node, size) = self.old.remove(id)?;
        self.insert(*id, node.clone(), size);
        Some(node)
    }

    fn insert(&mut self, id: NodeId, node: Arc<DirNode>, size: usize) {
        if self.young_bytes + size > CACHE_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(id, (node, size)).is_none() {
            self.young_bytes += size;
        }
    }
}

impl Trees {
    /// Opens the trees of `store`.
    pub fn new(store: Arc<dyn NodeStore>) -> Self {
        Self { store, cache: Mutex::default(), torn: AtomicBool::new(false) }
    }

    /// The tree of an empty file system; it is never stored.
    pub fn empty() -> NodeId {
        EMPTY.id
    }

    /// Whether the node of `root` itself is stored.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn contains(&self, root: &NodeId) -> Result<bool, TreeError> {
        Ok(*root == EMPTY.id || self.store.get(root)?.is_some())
    }

    /// The ids of the nodes that the node `id` names: for walks over all that is reachable, and for verification.
    ///
    /// # Errors
    /// When the node is missing or damaged, or the storage fails.
    pub fn subtrees(&self, id: &NodeId) -> Result<Vec<NodeId>, TreeError> {
        let node = self.load(id)?;
        Ok(node
            .children
            .iter()
            .filter_map(|c| c.contents.map(|c| c.id))
            .filter(|id| *id != EMPTY.id)
            .collect())
    }

    /// Reads a node, verified against its id.
    pub(crate) fn load(&self, id: &NodeId) -> Result<Arc<DirNode>, TreeError> {
        if *id == EMPTY.id {
            return Ok(Arc::default());
        }
        if let Some(node) = self.cache().get(id) {
            return Ok(node);
        }
        let torn = |error| {
            self.torn.store(true, Ordering::Relaxed);
            error
        };
        let bytes = self.store.get(id)?.ok_or_else(|| torn(TreeError::Missing(*id)))?;
        let node = (node_id(&bytes) == *id).then(|| DirNode::decode(&bytes)).flatten();
        let node = Arc::new(node.ok_or_else(|| torn(TreeError::Damaged(*id)))?);
        self.cache().insert(*id, node.clone(), bytes.len());
        Ok(node)
    }

    /// Whether a stored root can stand for all below it: no node was missed or found damaged so far.
    pub fn trusts_roots(&self) -> bool {
        !self.torn.load(Ordering::Relaxed)
    }

    /// Forgets what is held in memory: after a prune the store may have less than this.
    pub fn forget(&self) {
        *self.cache() = Cache::default();
    }

    /// The encoding of a node as it is stored; `None` where it is not.
    pub(crate) fn encoding(&self, id: &NodeId) -> Result<Option<Bytes>, TreeError> {
        Ok(self.store.get(id)?)
    }

    /// Where the nodes are.
    pub(crate) fn node_store(&self) -> Arc<dyn NodeStore> {
        self.store.clone()
    }

    /// Stores new nodes, children first.
    pub(crate) fn store(&self, nodes: Vec<(NodeId, Bytes)>) -> Result<(), TreeError> {
        if !nodes.is_empty() {
            self.store.put(nodes)?;
        }
        Ok(())
    }

    /// What an entry for an empty directory says of its contents.
    pub(crate) fn empty_contents() -> Contents {
        *EMPTY
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
