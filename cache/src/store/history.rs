//! Past builds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use solver::Digest;

use super::db::{Batch, Sync};
use super::error::StoreError;
use super::shared::Shared;
use super::table::json_value;

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildStatus {
    /// It runs, or its daemon died.
    Running,
    /// It finished.
    Done,
    /// It was cancelled.
    Cancelled,
    /// It failed, with this message.
    Failed(String),
}

/// How many vertices a build had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCounts {
    /// All of them.
    pub total: u32,
    /// Those that ended without an error.
    pub completed: u32,
    /// Those that came from the cache.
    pub cached: u32,
    /// Warnings.
    pub warnings: u32,
}

/// One build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Its ref, as the client named it.
    pub reference: String,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, in milliseconds since 1970.
    pub finished_ms: Option<u64>,
    /// How it ended.
    pub status: BuildStatus,
    /// The frontend.
    pub frontend: String,
    /// The frontend's attributes, without secrets.
    pub attrs: BTreeMap<String, String>,
    /// How many vertices it had.
    pub steps: StepCounts,
    /// The blob that holds its status events; kept as long as the build is.
    pub log: Option<Digest>,
    /// Whether trimming passes over it.
    pub pinned: bool,
}

json_value!(BuildRecord);

/// How much history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Builds older than this go…
    pub max_age: Duration,
    /// …once there are more than this many. Pinned and running ones count and stay.
    pub max_entries: usize,
}

impl Default for HistoryLimits {
    /// BuildKit's defaults (`docs/buildkitd.toml.md`, `[history]`): 48 hours, 50 entries.
    fn default() -> Self {
        Self { max_age: Duration::from_hours(48), max_entries: 50 }
    }
}

/// The builds of a store, by ref.
#[derive(Debug, Clone)]
pub struct History {
    pub(super) shared: Arc<Shared>,
}

impl History {
    /// Writes a build, in place of what had its ref before.
    pub fn put(&self, build: &BuildRecord) -> Result<(), StoreError> {
        let mut state = self.shared.leases.lock();
        state.links += 1;
        self.shared.tables.history.put(&build.reference, build)
    }

    /// One build.
    pub fn get(&self, reference: &str) -> Result<Option<BuildRecord>, StoreError> {
        self.shared.tables.history.get(&reference.to_owned())
    }

    /// All builds, oldest first.
    pub fn list(&self) -> Result<Vec<BuildRecord>, StoreError> {
        let mut builds: Vec<_> =
            self.shared.tables.history.all()?.into_iter().map(|(_, build)| build).collect();
        builds.sort_by(|a, b| (a.started_ms, &a.reference).cmp(&(b.started_ms, &b.reference)));
        Ok(builds)
    }

    /// Forgets a build. Returns `false` when it was not known.
    pub fn remove(&self, reference: &str) -> Result<bool, StoreError> {
        let known = self.get(reference)?.is_some();
        self.shared.tables.history.delete(&reference.to_owned())?;
        Ok(known)
    }

    /// Forgets what the limits do not keep. Returns how many builds that were.
    pub fn trim(&self, limits: HistoryLimits) -> Result<usize, StoreError> {
        let builds = self.list()?;
        let max_age = u64::try_from(limits.max_age.as_millis()).unwrap_or(u64::MAX);
        let cutoff = self.shared.now_ms().saturating_sub(max_age);
        let surplus = builds.len().saturating_sub(limits.max_entries);
        let mut batch = Batch::default();
        let mut trimmed = 0;
        for build in builds.iter().filter(|b| !b.pinned && b.status != BuildStatus::Running) {
            if trimmed < surplus && build.started_ms < cutoff {
                self.shared.tables.history.delete_in(&mut batch, &build.reference);
                trimmed += 1;
            }
        }
        self.shared.db.write(&batch, Sync::No)?;
        Ok(trimmed)
    }
}
