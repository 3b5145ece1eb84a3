//! Storage of the stat cache of local contexts ([`crate::context`] says what its values mean).
//!
//! Inode and device numbers mean the same only until the next boot, so the table is emptied then.

use std::sync::Arc;

use bytes::Bytes;

use super::db::{Batch, Cf, Sync};
use super::error::StoreError;
use super::shared::Shared;
use crate::context::{DirKey, StatCache as Storage, StatCacheError};

/// The stat cache of a store.
#[derive(Debug, Clone)]
pub struct StatCache {
    pub(super) shared: Arc<Shared>,
}

impl Storage for StatCache {
    fn get(&self, dir: DirKey) -> Result<Option<Bytes>, StatCacheError> {
        match self.shared.db.get(Cf::StatCache, &key(dir)) {
            Ok(found) => Ok(found.map(Bytes::from)),
            // A damaged block: the files are hashed again.
            Err(StoreError::Database { source, .. }) if source.kind() == rocksdb::ErrorKind::Corruption => {
                Ok(None)
            }
            Err(e) => Err(StatCacheError { action: "read", source: Box::new(e) }),
        }
    }

    fn put(&self, values: Vec<(DirKey, Bytes)>) -> Result<(), StatCacheError> {
        let mut batch = Batch::default();
        for (dir, value) in values {
            batch.put(Cf::StatCache, key(dir).to_vec(), value.to_vec());
        }
        let written = self.shared.db.write(&batch, Sync::No);
        written.map_err(|e| StatCacheError { action: "write", source: Box::new(e) })
    }
}

/// Device, then inode, big-endian.
fn key(dir: DirKey) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&dir.dev.to_be_bytes());
    key[8..].copy_from_slice(&dir.ino.to_be_bytes());
    key
}
