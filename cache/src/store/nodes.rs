//! Tree nodes, and which tree an image's content is.

use std::sync::Arc;

use bytes::Bytes;
use solver::Digest;

use super::Store;
use super::db::{Batch, Cf, Sync};
use super::error::StoreError;
use super::shared::Shared;
use crate::tree::{NodeId, NodeStore, NodeStoreError};

/// A batch of about this many bytes goes to the database at once: its copy in memory stays small.
const BATCH_BYTES: usize = 1 << 20;

/// The tree nodes of a store.
#[derive(Debug, Clone)]
pub struct Nodes {
    shared: Arc<Shared>,
}

impl Store {
    /// Where content trees are kept.
    pub fn nodes(&self) -> Nodes {
        Nodes { shared: Arc::clone(&self.shared) }
    }

    /// The root of the content tree of an image or a chain of layers.
    pub fn content(&self, of: &Digest) -> Result<Option<NodeId>, StoreError> {
        Ok(self.shared.tables.contents.get(of)?.map(NodeId::new))
    }

    /// Notes the root of the content tree of an image (by platform manifest digest) or of a chain.
    pub fn set_content(&self, of: &Digest, root: &NodeId) -> Result<(), StoreError> {
        self.shared.tables.contents.put(of, root.digest())
    }
}

impl NodeStore for Nodes {
    fn get(&self, id: &NodeId) -> Result<Option<Bytes>, NodeStoreError> {
        match self.shared.db.get(Cf::Trees, id.digest().as_bytes()) {
            Ok(found) => Ok(found.map(Bytes::from)),
            // A damaged block: the node is made again by whoever misses it.
            Err(StoreError::Database { source, .. }) if source.kind() == rocksdb::ErrorKind::Corruption => {
                Ok(None)
            }
            Err(e) => Err(NodeStoreError { action: "read", source: Box::new(e) }),
        }
    }

    fn put(&self, nodes: Vec<(NodeId, Bytes)>) -> Result<(), NodeStoreError> {
        let failed = |e| NodeStoreError { action: "write", source: Box::new(e) };
        let mut batch = Batch::default();
        let mut size = 0;
        for (id, bytes) in nodes {
            size += bytes.len();
            batch.put(Cf::Trees, id.digest().as_bytes().to_vec(), bytes.to_vec());
            if size >= BATCH_BYTES {
                self.shared.db.write(&std::mem::take(&mut batch), Sync::No).map_err(failed)?;
                size = 0;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.shared.db.write(&batch, Sync::No).map_err(failed)
    }
}
