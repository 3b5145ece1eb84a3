//! The stat cache: what the files of a context directory were hashed to.
//!
//! One value per directory, so that a context of thirty thousand files is a few hundred reads. When an entry may
//! be trusted (the racily-clean rule) is the caller's concern; here they are only kept. Inode and device numbers
//! mean the same only until the next boot, so the table is emptied then.

mod codec;

use std::sync::Arc;

use super::db::{Batch, Sync};
use super::error::StoreError;
use super::shared::Shared;
use super::table::TableKey;
pub(super) use codec::DirEntries;

/// A directory, by where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirKey {
    /// Device number (`st_dev`).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl TableKey for DirKey {
    fn to_bytes(&self) -> Vec<u8> {
        [self.dev.to_be_bytes(), self.ino.to_be_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (dev, ino) = bytes.split_at_checked(8)?;
        Some(Self {
            dev: u64::from_be_bytes(dev.try_into().ok()?),
            ino: u64::from_be_bytes(ino.try_into().ok()?),
        })
    }
}

/// A regular file of a directory and the digest of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatEntry {
    /// Its name in the directory.
    pub name: Box<[u8]>,
    /// Inode number, on the directory's device.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Change time in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Digest of its bytes (BLAKE3, [`crate::tree::FileDigest`]).
    pub digest: [u8; 32],
}

/// The stat cache of a store.
#[derive(Debug, Clone)]
pub struct StatCache {
    pub(super) shared: Arc<Shared>,
}

impl StatCache {
    /// The entries of a directory, sorted by name; none when it is not known.
    pub fn load_dir(&self, dir: DirKey) -> Result<Vec<StatEntry>, StoreError> {
        Ok(self.shared.tables.stat_cache.get(&dir)?.map_or_else(Vec::new, |entries| entries.0))
    }

    /// Replaces the entries of directories.
    pub fn store_dirs(&self, dirs: Vec<(DirKey, Vec<StatEntry>)>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for (dir, mut entries) in dirs {
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            self.shared.tables.stat_cache.put_in(&mut batch, &dir, &DirEntries(entries));
        }
        self.shared.db.write(&batch, Sync::No)
    }
}
