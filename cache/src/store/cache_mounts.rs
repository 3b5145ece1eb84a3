//! Cache mounts: directories that steps share and that outlive them. Copies of clients' directories
//! ([`super::local_copies`]) are kept the same way.
//!
//! A mount is known by a *key*, the hash of its id, the owner and mode it begins with and the content it begins
//! with; ids therefore never become paths. A key has one or more *instances*, `cache-mounts/<key>-<n>`, of which
//! usually one exists. Sharing is BuildKit's: *shared* steps join an instance that other shared steps use;
//! *private* ones take a free instance or make one; *locked* ones take a free instance, or wait for one.

pub(super) mod acquire;
mod reading;
mod state;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use solver::Digest;
use solver::digest::Hasher;

use super::epoch::Epoch;
use super::error::StoreError;
use super::shared::Shared;
use super::table::json_value;
use super::usage::{UsageKind, Use};
pub use reading::MountReading;
pub(super) use state::{MountStates, Users};

/// Who may use an instance at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Any number of steps.
    #[default]
    Shared,
    /// One step; another one gets another instance.
    Private,
    /// One step; another one waits.
    Locked,
}

/// Owner and mode of a new instance's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountOwner {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a step asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountRequest {
    /// The id, with the namespace of the build: any text.
    pub id: String,
    /// Who else may use it.
    pub sharing: Sharing,
    /// Owner and mode of the directory when it is new; `None` leaves those of the seed, or root and 0755.
    pub owner: Option<MountOwner>,
    /// Names what a new instance is filled with (`from=`).
    pub base: Option<Digest>,
    /// The running step. A step that mounts the same key twice gets the same instance, whatever the sharing.
    pub step: String,
    /// With `--no-cache`: the build. Its first use starts with a new instance, and what was there goes.
    pub clear_for: Option<String>,
    /// What `du` shows.
    pub description: String,
}

impl CacheMountRequest {
    /// The hash that names the mount, here and elsewhere: the domain `rbuild.cache-mount.v1`, the id, whether there is an owner
    /// and then mode, uid and gid, whether there is a base and then its digest.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new("rbuild.cache-mount.v1");
        hasher.str(&self.id).bool(self.owner.is_some());
        if let Some(owner) = &self.owner {
            hasher.u64(owner.mode.into()).u64(owner.uid.into()).u64(owner.gid.into());
        }
        hasher.bool(self.base.is_some());
        if let Some(base) = &self.base {
            hasher.digest(base);
        }
        hasher.finish()
    }

    fn key(&self) -> MountKey {
        MountKey(self.digest().hex())
    }
}

/// What instances are found by: a hash, as 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct MountKey(pub(super) String);

impl MountKey {
    /// The name of the instance `n`: its directory and its entry.
    fn instance(&self, n: u64) -> String {
        format!("{}-{n}", self.0)
    }

    /// The number of an instance of this key.
    fn number(&self, name: &str) -> Option<u64> {
        name.strip_prefix(&self.0)?.strip_prefix('-')?.parse().ok()
    }
}

/// What the store knows of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MountEntry {
    /// A cache mount, or a copy of a client's directory.
    #[serde(default = "cache_mount")]
    pub(super) kind: UsageKind,
    pub(super) id: String,
    pub(super) description: String,
    /// The last build that had it cleared.
    pub(super) cleared_for: Option<String>,
    /// Cleared while a step used it: goes when that step ends.
    pub(super) retired: bool,
    pub(super) used: Use,
    /// When it was last released; [`Epoch::OPEN`] while it is used.
    pub(super) epoch: Epoch,
    /// The bytes it takes, where whoever used it last knows; else the disk has to be asked.
    #[serde(default)]
    pub(super) size: Option<u64>,
    /// What it was filled with from elsewhere or written as there, by place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) based_on: BTreeMap<String, Vec<String>>,
}

/// What entries are that do not say it.
const fn cache_mount() -> UsageKind {
    UsageKind::CacheMount
}

json_value!(MountEntry);

/// Fills the directory of a new instance.
pub type Seed = Box<dyn FnOnce(&Path) -> std::io::Result<()> + Send>;

/// The cache mounts of a store.
#[derive(Debug, Clone)]
pub struct CacheMounts {
    pub(super) shared: Arc<Shared>,
}

impl CacheMounts {
    /// Gets an instance, waiting for it where the sharing says so. `seed` fills it if it is new.
    ///
    /// Dropping the future gives up. A step that needs several mounts uses [`Self::acquire_all`], or two steps
    /// could wait for each other.
    pub async fn acquire(
        &self,
        request: CacheMountRequest,
        seed: Option<Seed>,
    ) -> Result<CacheMountLease, StoreError> {
        acquire::acquire(&self.shared, UsageKind::CacheMount, request.key(), request, seed).await
    }

    /// Gets several instances, in the order of `requests`; they are taken in the order of their keys, which is
    /// the same for every step.
    pub async fn acquire_all(
        &self,
        requests: Vec<(CacheMountRequest, Option<Seed>)>,
    ) -> Result<Vec<CacheMountLease>, StoreError> {
        let mut ordered: Vec<_> = requests.into_iter().enumerate().collect();
        ordered.sort_by_key(|(_, (request, _))| request.key());
        let mut leases = Vec::new();
        for (index, (request, seed)) in ordered {
            leases.push((index, self.acquire(request, seed).await?));
        }
        leases.sort_by_key(|(index, _)| *index);
        Ok(leases.into_iter().map(|(_, lease)| lease).collect())
    }
}

/// An instance in use; given back when it is dropped.
#[derive(Debug)]
pub struct CacheMountLease {
    shared: Arc<Shared>,
    name: String,
    step: String,
    dir: PathBuf,
    size: Mutex<Option<u64>>,
}

impl CacheMountLease {
    /// The directory to mount.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What tells this instance from the others of its mount.
    pub fn instance(&self) -> &str {
        &self.name
    }

    /// Notes what it was filled with from elsewhere ([`MountReading::based_on`]).
    ///
    /// # Errors
    /// When that cannot be stored.
    pub fn set_based_on(&self, place: &str, names: Vec<String>) -> Result<(), StoreError> {
        reading::set_based_on(&self.shared, &self.name, place, names)
    }

    /// It is not what it should be: it goes when nobody uses it any more, and whoever begins to use the mount gets another one.
    ///
    /// # Errors
    /// When that cannot be stored.
    pub fn retire(&self) -> Result<(), StoreError> {
        let _in_use = self.shared.mounts.lock();
        let Some(mut entry) = self.shared.tables.cache_mounts.get(&self.name)? else { return Ok(()) };
        entry.retired = true;
        self.shared.tables.cache_mounts.put(&self.name, &entry)
    }

    /// Says how many bytes it takes now, so that nobody has to count.
    pub fn set_size(&self, bytes: u64) {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }
}

impl Drop for CacheMountLease {
    fn drop(&mut self) {
        let size = *self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = acquire::release(&self.shared, &self.name, &self.step, size) {
            tracing::warn!(mount = self.name, error = %e, "cannot note the end of a cache mount's use");
        }
    }
}
