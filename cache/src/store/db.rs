//! RocksDB, opened small.
//!
//! One process per machine runs this beside builds, so memory is what counts: an idle store may cost a few
//! MiB. The figures below bound memtables (4 MiB for all tables together) and the block cache (4 MiB).
//!
//! Durability: writes go to the write-ahead log without a sync, so a killed process loses nothing; after a power
//! cut the log is replayed to its last good entry, which gives a *prefix* of what was written, across all
//! tables. A synced write makes everything before it durable.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    LogLevel, Options, WriteBatch, WriteOptions,
};

use super::disk;
use super::error::StoreError;

/// The tables, each a column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cf {
    Meta,
    Records,
    Trees,
    Layers,
    Blobs,
    Images,
    Leases,
    CacheMounts,
    History,
    StatCache,
    Contents,
    Downloads,
    Earlier,
    Accounts,
    Explanations,
    Evictions,
}

impl Cf {
    const ALL: [Self; 16] = [
        Self::Meta,
        Self::Records,
        Self::Trees,
        Self::Layers,
        Self::Blobs,
        Self::Images,
        Self::Leases,
        Self::CacheMounts,
        Self::History,
        Self::StatCache,
        Self::Contents,
        Self::Downloads,
        Self::Earlier,
        Self::Accounts,
        Self::Explanations,
        Self::Evictions,
    ];

    /// The column family's name on disk.
    pub(super) const fn name(self) -> &'static str {
        match self {
            // RocksDB always has this one.
            Self::Meta => "default",
            Self::Records => "records",
            Self::Trees => "trees",
            Self::Layers => "snapshots",
            Self::Blobs => "blobs",
            Self::Images => "images",
            Self::Leases => "leases",
            Self::CacheMounts => "cache_mounts",
            Self::History => "history",
            Self::StatCache => "stat_cache",
            Self::Contents => "contents",
            Self::Downloads => "downloads",
            Self::Earlier => "earlier",
            Self::Accounts => "accounts",
            Self::Explanations => "explanations",
            Self::Evictions => "evictions",
        }
    }
}

/// Whether a write has to survive a power cut when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// It is in the page cache: it survives the process.
    No,
    /// It is on disk, with everything written before.
    Yes,
}

/// Changes that happen together or not at all.
#[derive(Debug, Default)]
pub(super) struct Batch(Vec<Change>);

#[derive(Debug)]
enum Change {
    Put(Cf, Vec<u8>, Vec<u8>),
    Delete(Cf, Vec<u8>),
    Clear(Cf),
}

impl Batch {
    pub(super) fn put(&mut self, cf: Cf, key: Vec<u8>, value: Vec<u8>) {
        self.0.push(Change::Put(cf, key, value));
    }

    pub(super) fn delete(&mut self, cf: Cf, key: Vec<u8>) {
        self.0.push(Change::Delete(cf, key));
    }

    /// Deletes every entry of a table that was written before the batch is.
    pub(super) fn clear(&mut self, cf: Cf) {
        self.0.push(Change::Clear(cf));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The table that an error is blamed on.
    fn table(&self) -> &'static str {
        self.0.first().map_or("default", |change| match change {
            Change::Put(cf, ..) | Change::Delete(cf, _) | Change::Clear(cf) => cf.name(),
        })
    }
}

/// A stored value, if there is one and it can be read.
pub(super) type Value = Result<Option<Vec<u8>>, rocksdb::Error>;

/// Greater than every key: keys are at most 32 raw bytes or UTF-8.
const AFTER_ALL_KEYS: [u8; 40] = [0xff; 40];

/// A cleared table smaller than this on disk is left to RocksDB: compacting costs more than it frees.
const COMPACT_ABOVE_BYTES: u64 = 8 << 20;

/// Below this a database that stopped writing for want of space is not opened again: opening writes too.
const REOPEN_FREE_BYTES: u64 = 8 << 20;

/// The open database.
#[derive(Debug)]
pub(super) struct Db {
    path: PathBuf,
    state: RwLock<State>,
    #[cfg(test)]
    synced: std::sync::atomic::AtomicUsize,
}

#[derive(Debug)]
struct State {
    /// `None` only when opening it again failed.
    db: Option<DB>,
    /// After a failed write RocksDB refuses all later ones until it is opened again.
    stuck: bool,
}

impl Db {
    /// Opens or creates the database in `path`, repairing it if it is damaged.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let db = match open_raw(path) {
            Err(e) if e.kind() == rocksdb::ErrorKind::Corruption => {
                tracing::warn!(path = %path.display(), error = %e, "metadata is damaged, repairing it");
                DB::repair(&db_options(), path).and_then(|()| open_raw(path))
            }
            other => other,
        };
        let db = db.map_err(|source| StoreError::Database { action: "open", table: "default", source })?;
        Ok(Self {
            path: path.to_owned(),
            state: RwLock::new(State { db: Some(db), stuck: false }),
            #[cfg(test)]
            synced: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// How many writes were on disk before they returned.
    #[cfg(test)]
    pub(super) fn synced(&self) -> usize {
        self.synced.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Reads one value.
    pub(super) fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(cf, |db, handle| db.get_cf(handle, key))
    }

    /// Reads many values in one go, in the order of `keys`. A value that cannot be read is an error of its own.
    pub(super) fn multi_get(&self, cf: Cf, keys: &[Vec<u8>]) -> Result<Vec<Value>, StoreError> {
        self.read(cf, |db, handle| {
            let found = db.batched_multi_get_cf(handle, keys.iter(), false);
            Ok(found.into_iter().map(|value| value.map(|v| v.map(|bytes| bytes.to_vec()))).collect())
        })
    }

    /// Calls `visit` for each entry in key order until it returns `false`.
    ///
    /// Writes to the database from within `visit` are not seen by the iteration, and do not block.
    pub(super) fn scan(&self, cf: Cf, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        self.read(cf, |db, handle| {
            let mut entries = db.raw_iterator_cf(handle);
            entries.seek_to_first();
            while let Some((key, value)) = entries.item() {
                if !visit(key, value) {
                    break;
                }
                entries.next();
            }
            entries.status()
        })
    }

    /// Writes a batch.
    pub(super) fn write(&self, batch: &Batch, sync: Sync) -> Result<(), StoreError> {
        if self.lock_read().stuck {
            self.reopen()?;
        }
        #[cfg(test)]
        self.synced.fetch_add(usize::from(sync == Sync::Yes), std::sync::atomic::Ordering::Relaxed);
        let result = self.read(Cf::Meta, |db, _| {
            let mut options = WriteOptions::default();
            options.set_sync(sync == Sync::Yes);
            db.write_opt(to_rocks(db, batch), &options)
        });
        let blame = |source| StoreError::Database { action: "write", table: batch.table(), source };
        match result {
            Err(StoreError::Database { source, .. }) => {
                if source.kind() == rocksdb::ErrorKind::IOError {
                    self.state.write().unwrap_or_else(PoisonError::into_inner).stuck = true;
                }
                Err(blame(source))
            }
            other => other,
        }
    }

    /// Frees the space of a table that was just cleared, if there is some to speak of.
    pub(super) fn compact_cleared(&self, cf: Cf) -> Result<(), StoreError> {
        self.read(cf, |db, handle| {
            db.delete_file_in_range_cf(handle, &[][..], &AFTER_ALL_KEYS[..])?;
            if sst_bytes(db, handle)? > COMPACT_ABOVE_BYTES {
                db.compact_range_cf(handle, None::<&[u8]>, None::<&[u8]>);
            }
            Ok(())
        })
    }

    /// Bytes of a table's files, without what is only in the log yet.
    pub(super) fn file_bytes(&self, cf: Cf) -> Result<u64, StoreError> {
        self.read(cf, sst_bytes)
    }

    /// Runs `action` on the open database and one table's handle.
    fn read<T>(
        &self,
        cf: Cf,
        action: impl FnOnce(&DB, &ColumnFamily) -> Result<T, rocksdb::Error>,
    ) -> Result<T, StoreError> {
        let mut state = self.lock_read();
        if state.db.is_none() {
            drop(state);
            self.reopen()?;
            state = self.lock_read();
        }
        let Some(db) = &state.db else {
            return Err(StoreError::io("open", &self.path)(std::io::Error::other("closed after an error")));
        };
        let handle = db.cf_handle(cf.name()).expect("every table is opened or created with the database");
        action(db, handle).map_err(|source| StoreError::Database { action: "read", table: cf.name(), source })
    }

    /// Opens the database again after a failed write, when there is space again.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.db.is_some() && !state.stuck {
            return Ok(()); // another thread was faster
        }
        if disk::free_bytes(&self.path)? < REOPEN_FREE_BYTES {
            return Err(StoreError::io("write", &self.path)(std::io::ErrorKind::StorageFull.into()));
        }
        state.db = None; // RocksDB's own lock allows one instance at a time
        match open_raw(&self.path) {
            Ok(db) => {
                *state = State { db: Some(db), stuck: false };
                Ok(())
            }
            Err(source) => Err(StoreError::Database { action: "open", table: "default", source }),
        }
    }

    fn lock_read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sst_bytes(db: &DB, handle: &ColumnFamily) -> Result<u64, rocksdb::Error> {
    let bytes = db.property_int_value_cf(handle, rocksdb::properties::TOTAL_SST_FILES_SIZE)?;
    Ok(bytes.unwrap_or(0))
}

fn to_rocks(db: &DB, batch: &Batch) -> WriteBatch {
    let handle =
        |cf: Cf| db.cf_handle(cf.name()).expect("every table is opened or created with the database");
    let mut out = WriteBatch::default();
    for change in &batch.0 {
        match change {
            Change::Put(cf, key, value) => out.put_cf(handle(*cf), key, value),
            Change::Delete(cf, key) => out.delete_cf(handle(*cf), key),
            Change::Clear(cf) => out.delete_range_cf(handle(*cf), &[][..], &AFTER_ALL_KEYS[..]),
        }
    }
    out
}

fn open_raw(path: &Path) -> Result<DB, rocksdb::Error> {
    let cache = Cache::new_lru_cache(4 << 20);
    let tables = Cf::ALL.map(|cf| ColumnFamilyDescriptor::new(cf.name(), table_options(cf, &cache)));
    DB::open_cf_descriptors(&db_options(), path, tables)
}

/// Options of the whole database.
fn db_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_db_write_buffer_size(4 << 20);
    // The log is what is read at the next start: 8 MiB replay in well under 100 ms.
    options.set_max_total_wal_size(8 << 20);
    // The log may end in the middle of an entry after a power cut; what comes before is good.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_max_background_jobs(2);
    options.set_max_open_files(64);
    options.set_max_file_opening_threads(1);
    options.set_table_cache_num_shard_bits(2);
    options.set_allow_mmap_reads(false);
    options.set_allow_mmap_writes(false);
    options.set_writable_file_max_buffer_size(64 << 10);
    options.set_manifest_preallocation_size(64 << 10);
    options.set_max_manifest_file_size(1 << 20);
    // Statistics have a thread and a table of their own; nobody reads them.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_skip_stats_update_on_db_open(true);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options
}

/// Options of one table.
fn table_options(cf: Cf, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(8 << 10);
    blocks.set_bloom_filter(10.0, false);
    // Index and filter blocks count into the cache's limit instead of growing beside it.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_format_version(6);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    // Tree nodes and the stat cache come in bulk, everything else is small.
    let bulk = matches!(cf, Cf::Trees | Cf::StatCache);
    options.set_write_buffer_size(if bulk { 2 << 20 } else { 512 << 10 });
    options.set_arena_block_size(if bulk { 128 << 10 } else { 16 << 10 });
    options.set_max_write_buffer_number(2);
    options.set_target_file_size_base(8 << 20);
    options.set_max_bytes_for_level_base(32 << 20);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}
