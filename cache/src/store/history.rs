//! Past builds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use solver::Digest;

use super::blobs::BlobRef;
use super::db::{Batch, Sync};
use super::error::StoreError;
use super::shared::Shared;
use super::table::json_value;
use super::trash;

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildStatus {
    /// It runs, or its daemon died.
    Running,
    /// It finished.
    Done,
    /// It was cancelled.
    Cancelled,
    /// It failed.
    Failed {
        /// gRPC's class of the error, as its number.
        code: i32,
        /// What the user read.
        message: String,
    },
}

/// Where a build's result was to go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The exporter's type.
    pub kind: String,
    /// Its attributes.
    pub attrs: BTreeMap<String, String>,
}

/// A statement about a build's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildStatement {
    /// For which platform it was built, if for several.
    pub platform: Option<String>,
    /// The type of the predicate, a URI.
    pub predicate_type: String,
    /// The blob that holds the predicate; kept as long as the build is.
    pub predicate: Digest,
    /// The blob's length in bytes.
    pub size: u64,
}

/// A blob that tells more of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildBlob {
    /// The blob; kept as long as the build is.
    pub blob: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// How many vertices a build had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCounts {
    /// All of them.
    pub total: u32,
    /// Those that ended, be it with an error.
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
    /// Where its result was to go.
    #[serde(default)]
    pub destinations: Vec<Destination>,
    /// What the exporters said of the result.
    #[serde(default)]
    pub response: BTreeMap<String, String>,
    /// How many vertices it had.
    pub steps: StepCounts,
    /// The blob that holds its status events; kept as long as the build is.
    pub log: Option<Digest>,
    /// Its failure with all details.
    #[serde(default)]
    pub error: Option<BuildBlob>,
    /// Its spans.
    #[serde(default)]
    pub trace: Option<BuildBlob>,
    /// What is told of its results.
    #[serde(default)]
    pub statements: Vec<BuildStatement>,
    /// What its exporters made: manifests and indexes, by the exporters' numbers.
    #[serde(default)]
    pub results: BTreeMap<u64, BlobRef>,
    /// The manifests that those indexes list.
    #[serde(default)]
    pub listed: Vec<Digest>,
    /// Whether trimming passes over it.
    pub pinned: bool,
}

json_value!(BuildRecord);

impl BuildRecord {
    /// The blobs that it needs.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> {
        let error = self.error.map(|error| error.blob);
        let statements = self.statements.iter().map(|statement| statement.predicate);
        let trace = self.trace.map(|trace| trace.blob);
        let results = self.results.values().map(|result| result.digest);
        let listed = self.listed.iter().copied();
        self.log.into_iter().chain(error).chain(trace).chain(statements).chain(results).chain(listed)
    }
}

/// How much history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Builds older than this go…
    pub max_age: Duration,
    /// …once there are more than this many. Pinned and running ones count and stay.
    pub max_entries: usize,
    /// Bytes of all logs together. Beyond them the oldest builds lose theirs, but for pinned ones.
    pub max_log_bytes: u64,
}

impl Default for HistoryLimits {
    /// BuildKit's defaults (`docs/buildkitd.toml.md`, `[history]`): 48 hours, 50 entries. It clips logs; here they are whole,
    /// so that there is a bound on them together.
    fn default() -> Self {
        Self { max_age: Duration::from_hours(48), max_entries: 50, max_log_bytes: 1_000_000_000 }
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

    /// The blobs that builds need, each once.
    pub fn blobs(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let builds = self.shared.tables.history.all()?;
        Ok(builds.iter().flat_map(|(_, build)| build.blobs()).collect())
    }

    /// Forgets a build, its log and its statements. Returns `false` when it was not known.
    pub fn remove(&self, reference: &str) -> Result<bool, StoreError> {
        let Some(build) = self.get(reference)? else { return Ok(false) };
        let mut batch = Batch::default();
        self.shared.tables.history.delete_in(&mut batch, &build.reference);
        self.shared.tables.explanations.delete_in(&mut batch, &build.reference);
        self.write(batch, build.blobs().collect())?;
        Ok(true)
    }

    /// Forgets what the limits do not keep. Returns how many builds that were.
    pub fn trim(&self, limits: HistoryLimits) -> Result<usize, StoreError> {
        let builds = self.list()?;
        let max_age = u64::try_from(limits.max_age.as_millis()).unwrap_or(u64::MAX);
        let cutoff = self.shared.now_ms().saturating_sub(max_age);
        let surplus = builds.len().saturating_sub(limits.max_entries);
        let mut log_bytes = 0;
        for digest in builds.iter().filter_map(|build| build.log) {
            log_bytes += self.size(&digest)?;
        }
        let (mut batch, mut blobs, mut trimmed) = (Batch::default(), Vec::new(), 0);
        for build in builds.iter().filter(|b| !b.pinned && b.status != BuildStatus::Running) {
            let goes = trimmed < surplus && build.started_ms < cutoff;
            if goes {
                self.shared.tables.history.delete_in(&mut batch, &build.reference);
                self.shared.tables.explanations.delete_in(&mut batch, &build.reference);
                trimmed += 1;
                blobs.extend(build.blobs().filter(|blob| Some(*blob) != build.log));
            }
            let Some(log) = build.log.filter(|_| goes || log_bytes > limits.max_log_bytes) else { continue };
            log_bytes = log_bytes.saturating_sub(self.size(&log)?);
            blobs.push(log);
            if !goes {
                let without = BuildRecord { log: None, ..build.clone() };
                self.shared.tables.history.put_in(&mut batch, &build.reference, &without);
            }
        }
        self.write(batch, blobs)?;
        Ok(trimmed)
    }

    fn size(&self, log: &Digest) -> Result<u64, StoreError> {
        Ok(self.shared.tables.blobs.get(log)?.map_or(0, |entry| entry.size))
    }

    /// Writes the batch, and deletes those of `blobs` that nothing else needs.
    fn write(&self, mut batch: Batch, blobs: Vec<Digest>) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let state = self.shared.leases.lock();
        let mounts = self.shared.mounts.lock();
        let inventory = self.shared.inventory(&state, &mounts)?;
        let mut files = Vec::new();
        for blob in blobs {
            if inventory.is_only_history(&blob) && !state.holds_blob(&blob) {
                self.shared.tables.blobs.delete_in(&mut batch, &blob);
                files.push(self.shared.layout.blob(&blob));
            }
        }
        self.shared.db.write(&batch, Sync::Yes)?;
        for file in files {
            self.shared.trash.take(&file)?.iter().for_each(|path| trash::remove(path));
        }
        Ok(())
    }
}
