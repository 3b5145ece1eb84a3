//! Opening a store.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use fs_err as fs;

use super::cache_mounts::MountStates;
use super::db::Db;
use super::epoch::Epochs;
use super::error::StoreError;
use super::format::{self, FormatCheck};
use super::layout::Layout;
use super::lease::Leases;
use super::lock::RootLock;
use super::records::RecordWriters;
use super::shared::{Shared, Tables};
use super::trash::Trash;
use super::{Recovery, Store, boot, recover};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The id of this boot of the machine; `None` reads the kernel's. Tests play a power cut with it.
    pub boot_id: Option<String>,
    /// The clock for creation and use times.
    pub now: fn() -> SystemTime,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { boot_id: None, now: SystemTime::now }
    }
}

impl Store {
    /// Opens the store in `root`, or makes one there.
    ///
    /// Whatever an earlier process left unfinished is cleaned up; the rest of its data is there, also when it was
    /// killed. When the machine has been started anew since, files that were not yet safely on disk are verified,
    /// and dropped where they are damaged.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::TooNew`], [`StoreError::Foreign`], or when the disk fails.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_locked(RootLock::take(root)?, options)
    }

    /// Opens the store in a root that is locked already.
    ///
    /// # Errors
    /// As [`Self::open`], without [`StoreError::Locked`].
    pub fn open_locked(lock: RootLock, options: StoreOptions) -> Result<Self, StoreError> {
        let layout = lock.layout().clone();
        let boot_id = match options.boot_id {
            Some(id) => id,
            None => boot::current_id()?,
        };
        let emptied_format = match format::check(&layout)? {
            FormatCheck::Emptied { found } => {
                tracing::warn!(root = %layout.root().display(), found, "the root had an older format and was emptied");
                Some(found)
            }
            FormatCheck::Fresh | FormatCheck::Current => None,
        };
        create_dirs(&layout)?;
        recover::clear_tmp(&layout)?;
        let db = Arc::new(Db::open(&layout.metadata())?);
        let shared = Shared {
            tables: Tables::new(&db),
            epochs: Epochs::load(&db, &layout)?,
            leases: Leases::default(),
            mounts: Arc::new(MountStates::default()),
            record_writers: RecordWriters::default(),
            trash: Trash::new(layout.tmp()),
            pruning: Mutex::new(()),
            now: options.now,
            db,
            _lock: lock,
            layout,
        };
        let recovery = Recovery { emptied_format, ..recover::recover(&shared, &boot_id)? };
        shared.load_named_leases()?;
        Ok(Self { shared: Arc::new(shared), recovery: Arc::new(recovery) })
    }
}

const SETGID: u32 = 0o2000;

fn create_dirs(layout: &Layout) -> Result<(), StoreError> {
    for dir in [layout.blobs(), layout.snapshots(), layout.cache_mounts(), layout.tmp()] {
        fs::create_dir_all(&dir).map_err(StoreError::io("create", &dir))?;
    }
    // What is made in a setgid directory gets its group and not the process's.
    let tmp = layout.tmp();
    let mode = fs::metadata(&tmp).map_err(StoreError::io("read", &tmp))?.permissions().mode();
    if mode & SETGID != 0 {
        fs::set_permissions(&tmp, Permissions::from_mode(mode & 0o7777 & !SETGID))
            .map_err(StoreError::io("change the mode of", &tmp))?;
    }
    Ok(())
}
