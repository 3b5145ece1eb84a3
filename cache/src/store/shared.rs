//! What all handles of one store share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use solver::{Digest, Key, LayerId};

use super::accounts::{Account, Explained};
use super::blobs::BlobEntry;
use super::cache_mounts::{MountEntry, MountStates};
use super::db::{Batch, Cf, Db, Sync};
use super::downloads::DownloadRecord;
use super::epoch::Epochs;
use super::error::StoreError;
use super::evictions::Eviction;
use super::history::BuildRecord;
use super::images::ImageRecord;
use super::layers::LayerInfo;
use super::layout::Layout;
use super::lease::{Held, Leases};
use super::lock::RootLock;
use super::records::{RecordEntry, RecordWriters};
use super::table::Table;
use super::trash::Trash;

/// The inside of a [`super::Store`].
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) layout: Layout,
    pub(super) tables: Tables,
    pub(super) epochs: Epochs,
    pub(super) leases: Leases,
    pub(super) mounts: Arc<MountStates>,
    pub(super) record_writers: RecordWriters,
    pub(super) trash: Trash,
    /// One prune at a time.
    pub(super) pruning: Mutex<()>,
    pub(super) now: fn() -> SystemTime,
    pub(super) db: Arc<Db>,
    /// Last, so that the root is free only when the database is closed.
    pub(super) _lock: RootLock,
}

/// The typed tables; tree nodes and the stat cache are bytes to the store.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) records: Table<Key, RecordEntry>,
    pub(super) layers: Table<LayerId, LayerInfo>,
    pub(super) blobs: Table<Digest, BlobEntry>,
    pub(super) images: Table<String, ImageRecord>,
    pub(super) leases: Table<String, Held>,
    pub(super) cache_mounts: Table<String, MountEntry>,
    pub(super) history: Table<String, BuildRecord>,
    pub(super) downloads: Table<Digest, DownloadRecord>,
    pub(super) contents: Table<Digest, Digest>,
    /// What each step gave last.
    pub(super) earlier: Table<Digest, Digest>,
    pub(super) accounts: Table<Digest, Account>,
    pub(super) explanations: Table<String, Explained>,
    pub(super) evictions: Table<Digest, Eviction>,
}

impl Tables {
    pub(super) fn new(db: &Arc<Db>) -> Self {
        Self {
            records: Table::new(db, Cf::Records),
            layers: Table::new(db, Cf::Layers),
            blobs: Table::new(db, Cf::Blobs),
            images: Table::new(db, Cf::Images),
            leases: Table::new(db, Cf::Leases),
            cache_mounts: Table::new(db, Cf::CacheMounts),
            history: Table::new(db, Cf::History),
            downloads: Table::new(db, Cf::Downloads),
            contents: Table::new(db, Cf::Contents),
            earlier: Table::new(db, Cf::Earlier),
            accounts: Table::new(db, Cf::Accounts),
            explanations: Table::new(db, Cf::Explanations),
            evictions: Table::new(db, Cf::Evictions),
        }
    }
}

impl Shared {
    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        let since = (self.now)().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Forgets a layer's content, or all of it when it cannot be fetched again, and moves its directory away; also of
    /// the layers that are thin over it. The lease state is locked. Returns what is to be removed from the disk.
    pub(super) fn discard_layer(&self, id: &LayerId) -> Result<Vec<PathBuf>, StoreError> {
        let thin = self.tables.layers.all()?.into_iter().filter(|(_, info)| info.backing == Some(*id));
        let mut gone = Vec::new();
        for id in thin.map(|(id, _)| id).chain([*id]) {
            gone.extend(self.discard_one(&id)?);
        }
        Ok(gone)
    }

    fn discard_one(&self, id: &LayerId) -> Result<Option<PathBuf>, StoreError> {
        let mut batch = Batch::default();
        if let Some(mut info) = self.tables.layers.get(id)? {
            info.present = false;
            info.backing = None;
            info.entries_digest = None;
            (info.size, info.entries) = (0, 0);
            if self.is_usable(&info)? {
                self.tables.layers.put_in(&mut batch, id, &info);
            } else {
                self.tables.layers.delete_in(&mut batch, id);
            }
        }
        self.db.write(&batch, Sync::Yes)?;
        self.trash.take(&self.layout.snapshot(id))
    }
}
