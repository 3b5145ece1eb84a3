//! Trees on their way to another machine.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::codec::{Reader, node_id, put_bytes, put_varint};
use super::error::TreeError;
use super::node::NodeId;
use super::store::{NodeStore, NodeStoreError};
use super::trees::Trees;

/// So many nodes travel at most: one for each directory.
const MAX_NODES: usize = 200_000;

/// The nodes of some trees. Those that came from elsewhere may be any: each counts as what its bytes say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle(Vec<Bytes>);

impl Bundle {
    /// As bytes: a count, then each node with its length.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.iter().map(|node| node.len() + 5).sum::<usize>() + 5);
        put_varint(&mut out, self.0.len() as u64);
        self.0.iter().for_each(|node| put_bytes(&mut out, node));
        out
    }

    /// Reads what [`Self::encode`] gave, whose bytes it shares; `None` for anything else, and for more nodes than travel.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut input = Reader(bytes);
        let count = input.varint().filter(|count| *count <= MAX_NODES as u64)?;
        let nodes: Option<Vec<Bytes>> = (0..count)
            .map(|_| Some(bytes.slice_ref(input.bytes().filter(|node| !node.is_empty())?)))
            .collect();
        nodes.filter(|_| input.0.is_empty()).map(Self)
    }
}

/// Nodes in memory, and all others where they are.
#[derive(Debug)]
struct Above {
    own: HashMap<NodeId, Bytes>,
    below: Arc<dyn NodeStore>,
}

impl NodeStore for Above {
    fn get(&self, id: &NodeId) -> Result<Option<Bytes>, NodeStoreError> {
        match self.own.get(id) {
            Some(node) => Ok(Some(node.clone())),
            None => self.below.get(id),
        }
    }

    fn put(&self, nodes: Vec<(NodeId, Bytes)>) -> Result<(), NodeStoreError> {
        self.below.put(nodes)
    }
}

impl Trees {
    /// All nodes of the trees of `roots`, as far as they are stored; `None` where they have more than `limit` bytes, or are more than travel.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn bundle(&self, roots: &[NodeId], limit: usize) -> Result<Option<Bundle>, TreeError> {
        let (mut todo, mut seen) = (roots.to_vec(), HashSet::new());
        let (mut nodes, mut bytes) = (Vec::new(), 0);
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            let Some(node) = self.encoding(&id)? else { continue };
            bytes += node.len();
            if bytes > limit || nodes.len() == MAX_NODES {
                return Ok(None);
            }
            todo.extend(self.subtrees(&id)?);
            nodes.push(node);
        }
        Ok(Some(Bundle(nodes)))
    }

    /// Whether the trees of `roots` have no more than `most` paths together, as far as they are stored. Equal directories are one node, so
    /// a few nodes may be more paths than anybody could go through.
    ///
    /// # Errors
    /// When the storage fails, or a node is none.
    pub fn have_paths_within(&self, roots: &[NodeId], most: u64) -> Result<bool, TreeError> {
        let mut known: HashMap<NodeId, u64> = HashMap::from([(Self::empty(), 0)]);
        let mut todo: Vec<NodeId> = roots.to_vec();
        while let Some(id) = todo.last().copied() {
            if known.contains_key(&id) || self.encoding(&id)?.is_none() {
                known.entry(id).or_insert(0);
                todo.pop();
                continue;
            }
            let below = self.subtrees(&id)?;
            let unknown: Vec<NodeId> = below.iter().filter(|id| !known.contains_key(*id)).copied().collect();
            if !unknown.is_empty() {
                todo.extend(unknown);
                continue;
            }
            let own = self.load(&id)?.children.len() as u64;
            let all = below.iter().fold(own, |sum, id| sum.saturating_add(known[id]));
            if all > most {
                return Ok(false);
            }
            known.insert(id, all);
            todo.pop();
        }
        let all = roots.iter().fold(0u64, |sum, root| sum.saturating_add(known[root]));
        Ok(all <= most)
    }

    /// These trees and those of `bundle`, which nothing is stored of.
    #[must_use]
    pub fn with(&self, bundle: &Bundle) -> Self {
        let own = bundle.0.iter().map(|node| (node_id(node), node.clone())).collect();
        Self::new(Arc::new(Above { own, below: self.node_store() }))
    }
}
