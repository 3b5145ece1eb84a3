//! The store: one root directory and everything durable in it.
//!
//! ```text
//! <root>/lock                       held by the one process that works here; names it
//!        format                     version of all that follows
//!        metadata/                  RocksDB; a column family per table
//!        blobs/sha256/xx/<hex>      blobs, by the SHA-256 of their bytes
//!        snapshots/<layer id>/fs    a layer's directory in normal form
//!        snapshots/<layer id>/entries   the list of what it holds
//!        cache-mounts/<key>-<n>/    instances of cache mounts, and copies of clients' directories
//!        tmp/                       what is being made or removed; emptied at start
//! ```
//!
//! **Writing.** Files first, then the entry that names them; deleting is the other way round. So after a killed
//! process there are at most files without an entry, which opening removes. Nothing is synced per step: entries
//! carry the epoch of their files, [`Store::checkpoint`] makes an epoch durable, and after a power cut what is
//! younger is verified or dropped (`epoch`, `recover`).
//!
//! **Roots of garbage collection.** Named images, [`Lease`]s of running builds, named leases of containers, logs
//! of past builds, cache mounts in use (`prune`).
//!
//! **Locking.** `flock` on `lock` keeps other processes out. Inside, the mutex of the leases orders every change
//! of layers, blobs and images against pruning; the mutex of the cache mounts is taken after it; records have
//! their own. None is held across an await.
//!
//! Methods without `async` do not wait for the disk unless they say so.

mod accounts;
mod blobs;
mod boot;
mod cache_mounts;
mod db;
mod disk;
mod downloads;
mod earlier;
mod epoch;
mod error;
mod evictions;
mod filter;
mod format;
mod history;
mod images;
mod inventory;
mod layers;
mod layout;
mod lease;
mod local_copies;
mod lock;
mod named_lease;
mod nodes;
mod open;
mod policy;
mod prune;
mod records;
mod recover;
mod shared;
mod stat_cache;
mod table;
mod trash;
mod usage;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use accounts::{Account, Accounts};
pub use blobs::{BlobPurpose, BlobRef, BlobWriter, Blobs};
pub use cache_mounts::{
    CacheMountLease, CacheMountRequest, CacheMounts, MountOwner, MountReading, Seed, Sharing,
};
pub use disk::DiskSpace;
pub use downloads::{DownloadRecord, Downloads};
pub use error::StoreError;
pub use evictions::{Eviction, Evictions};
pub use filter::{Filtered, Filters, InvalidFilter};
pub use history::{
    BuildBlob, BuildRecord, BuildStatement, BuildStatus, Destination, History, HistoryLimits, StepCounts,
};
pub use images::{ImageRecord, Images};
pub use layers::{LayerAbout, LayerInfo, Layers, Origin, Staging};
pub use lease::{Held, Lease};
pub use local_copies::LocalCopies;
pub use lock::RootLock;
pub use nodes::Nodes;
pub use open::StoreOptions;
pub use policy::{PrunePolicy, default_policies};
pub use prune::Pruned;
pub use records::Records;
pub use recover::Recovery;
pub use stat_cache::StatCache;
pub use usage::{UsageKind, UsageRecord};
pub use verify::VerifyReport;

use shared::Shared;

/// An open store; clones are handles of the same one. It is closed when the last of them is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
    recovery: Arc<Recovery>,
}

impl Store {
    /// The root directory.
    pub fn root(&self) -> &Path {
        self.shared.layout.root()
    }

    /// Where what is under way lies; emptied when the store is opened.
    pub fn tmp(&self) -> PathBuf {
        self.shared.layout.tmp()
    }

    /// What opening it had to put in order.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// A new lease, for a build or another request: what it holds stays until it is dropped.
    pub fn lease(&self) -> Lease {
        self.shared.leases.begin()
    }

    /// The blobs.
    pub fn blobs(&self) -> Blobs {
        Blobs { shared: Arc::clone(&self.shared) }
    }

    /// The layers.
    pub fn layers(&self) -> Layers {
        Layers { shared: Arc::clone(&self.shared) }
    }

    /// The named images.
    pub fn images(&self) -> Images {
        Images { shared: Arc::clone(&self.shared) }
    }

    /// The cache mounts.
    pub fn cache_mounts(&self) -> CacheMounts {
        CacheMounts { shared: Arc::clone(&self.shared) }
    }

    /// The copies of clients' directories.
    pub fn local_copies(&self) -> LocalCopies {
        LocalCopies { shared: Arc::clone(&self.shared) }
    }

    /// The stat cache of local contexts.
    pub fn stat_cache(&self) -> StatCache {
        StatCache { shared: Arc::clone(&self.shared) }
    }

    /// The past builds.
    pub fn downloads(&self) -> Downloads {
        Downloads { shared: Arc::clone(&self.shared) }
    }

    /// Past builds.
    pub fn history(&self) -> History {
        History { shared: Arc::clone(&self.shared) }
    }

    /// What builds were keyed on.
    pub fn accounts(&self) -> Accounts {
        Accounts { shared: Arc::clone(&self.shared) }
    }

    /// What was removed.
    pub fn evictions(&self) -> Evictions {
        Evictions { shared: Arc::clone(&self.shared) }
    }

    /// Makes everything stored until now survive a power cut. Blocks on the disk.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.shared.epochs.checkpoint()
    }

    /// How long to wait until the next [`Self::checkpoint`], so that quick builds share one.
    pub fn checkpoint_due_in(&self) -> Duration {
        self.shared.epochs.due_in()
    }
}
