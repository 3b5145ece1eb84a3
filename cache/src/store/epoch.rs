//! Checkpoint epochs: durability without a sync per step.
//!
//! Every entry that names files carries the epoch in which its files were complete. [`Epochs::checkpoint`] starts
//! the next epoch, makes the file system write everything (`syncfs`) and then notes the ended epoch as durable
//! with a synced write. Whoever stamps an entry reads the epoch *after* the files are in place, so every entry
//! of an ended epoch had its files in the page cache before `syncfs` began.
//!
//! Entries that name no files need no epoch: the database is always a prefix of what was written to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::db::{Batch, Cf, Db, Sync};
use super::error::StoreError;
use super::layout::Layout;
use super::table::{Table, json_value};

/// A checkpoint costs a journal commit and what the disk has to catch up; builds that follow each other within
/// this time share one.
const MIN_INTERVAL: Duration = Duration::from_secs(5);

/// The number of a span of time between two checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Epoch(u64);

impl Epoch {
    /// Of what is still being written: no checkpoint covers it.
    pub(super) const OPEN: Self = Self(u64::MAX);
}

/// What the last checkpoint noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// This epoch and all before it are on disk.
    pub(super) durable: Epoch,
}

/// Under which boot of the machine the store was last used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastBoot {
    pub(super) id: String,
}

json_value!(Checkpoint, LastBoot);

/// The current epoch, and the way to end it.
#[derive(Debug)]
pub(super) struct Epochs {
    db: Arc<Db>,
    checkpoints: Table<String, Checkpoint>,
    layout: Layout,
    current: AtomicU64,
    /// One checkpoint at a time; held while the disk works.
    running: Mutex<()>,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    durable: u64,
    ended: Option<Instant>,
}

/// The key of the only [`Checkpoint`].
const CHECKPOINT: &str = "checkpoint";

impl Epochs {
    /// Goes on after the last checkpoint.
    pub(super) fn load(db: &Arc<Db>, layout: &Layout) -> Result<Self, StoreError> {
        let checkpoints = Table::<String, Checkpoint>::new(db, Cf::Meta);
        let durable = checkpoints.get(&CHECKPOINT.to_owned())?.map_or(0, |c| c.durable.0);
        Ok(Self {
            db: Arc::clone(db),
            checkpoints,
            layout: layout.clone(),
            current: AtomicU64::new(durable + 1),
            running: Mutex::new(()),
            last: Mutex::new(Last { durable, ended: None }),
        })
    }

    /// The epoch to stamp an entry with, once its files are in place.
    pub(super) fn stamp(&self) -> Epoch {
        Epoch(self.current.load(Ordering::SeqCst))
    }

    /// Whether everything of that epoch is known to be on disk.
    pub(super) fn is_durable(&self, epoch: Epoch) -> bool {
        epoch.0 <= self.last().durable
    }

    /// Makes everything that was stamped until now durable. Blocks on the disk.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        let _alone = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = self.current.fetch_add(1, Ordering::SeqCst);
        let root = self.layout.root();
        let dir = fs::File::open(root).map_err(StoreError::io("open", root))?;
        nix::unistd::syncfs(&dir).map_err(|e| StoreError::io("sync", root)(e.into()))?;
        let mut batch = Batch::default();
        self.checkpoints.put_in(&mut batch, &CHECKPOINT.to_owned(), &Checkpoint { durable: Epoch(ended) });
        self.db.write(&batch, Sync::Yes)?;
        *self.last() = Last { durable: ended, ended: Some(Instant::now()) };
        Ok(())
    }

    /// How long to wait until the next checkpoint is due.
    pub(super) fn due_in(&self) -> Duration {
        self.last().ended.map_or(Duration::ZERO, |ended| MIN_INTERVAL.saturating_sub(ended.elapsed()))
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
