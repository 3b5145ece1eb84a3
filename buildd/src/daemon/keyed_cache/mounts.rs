//! Cache mounts that travel: brought in when a step first uses one that this machine has not, written at the end of the build.

mod choice;
mod current;
mod export;
mod import;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::keyed::{Scope, SharedBlob, SnapshotName};
use cache::mounts::MountError;
use cache::store::{CacheMountRequest, Seed, StoreError};
use solver::{Digest, ExecError, VertexContext};

use super::KeyedCaches;
use super::home::HomeError;
pub(super) use choice::MountChoice;

/// Which caches the cache mounts of running builds come from and go to.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Travels(Mutex<HashMap<String, Arc<KeyedCaches>>>);

impl Travels {
    /// The mounts of a build's steps travel by these until it is forgotten.
    pub(in crate::daemon) fn begin(&self, build: &str, caches: &Arc<KeyedCaches>) {
        lock(&self.0).insert(build.to_owned(), caches.clone());
    }

    /// What a build's mounts travel by.
    pub(in crate::daemon) fn of(&self, build: &str) -> Option<Arc<KeyedCaches>> {
        lock(&self.0).get(build).cloned()
    }

    /// Forgets a build.
    pub(in crate::daemon) fn forget(&self, build: &str) {
        let forgotten = lock(&self.0).remove(build);
        drop(forgotten);
    }
}

/// The mounts that the steps of a build use.
#[derive(Debug, Default)]
pub(super) struct UsedMounts(Mutex<BTreeMap<Digest, UsedMount>>);

/// One of them.
#[derive(Debug, Clone)]
struct UsedMount {
    /// As the Dockerfile calls it, with its namespace.
    id: String,
    /// Which instance was used last.
    instance: String,
    /// A step that used it has not ended well: what it left may be half a thing, and stays here.
    spoilt: bool,
    /// What is in it, by store and scope.
    brought: HashMap<(String, Scope), HashSet<SnapshotName>>,
}

/// A step's use of a mount. Unless it is told that the step ended well, the mount is not written.
#[derive(Debug)]
pub(in crate::daemon) struct MountUse {
    caches: Arc<KeyedCaches>,
    mount: Digest,
    well: bool,
}

impl MountUse {
    /// The step ended well.
    pub(in crate::daemon) fn ended_well(mut self) {
        self.well = true;
    }
}

impl Drop for MountUse {
    fn drop(&mut self) {
        if !self.well
            && let Some(used) = lock(&self.caches.mounts.0).get_mut(&self.mount)
        {
            used.spoilt = true;
        }
    }
}

/// A mount cannot be had or written.
#[derive(Debug, thiserror::Error)]
enum TravelError {
    /// The store does not do what is asked of it.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// It cannot be read or put together.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The store here.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The connection broke.
    #[error("the store broke off")]
    Broken(#[source] std::io::Error),
    /// A file of the daemon's own.
    #[error("cannot write what came in")]
    Disk(#[source] std::io::Error),
    /// A blob is something else.
    #[error("blob `{blob}` of {store} is damaged: {source}")]
    Damaged { blob: Digest, store: String, source: MountError },
    /// Other builds use it.
    #[error("other builds use it")]
    Busy,
    /// It names more than fits into one record.
    #[error("it is too large")]
    TooLarge,
    /// Nobody wants it any more.
    #[error("canceled")]
    Canceled,
}

impl From<TravelError> for ExecError {
    fn from(error: TravelError) -> Self {
        match error {
            TravelError::Canceled | TravelError::Mount(MountError::Canceled) => Self::Canceled,
            other => Self::failed(other),
        }
    }
}

impl KeyedCaches {
    /// What fills a new instance of a mount: what others left of it, or else `seed`.
    pub(in crate::daemon) fn seed(
        self: &Arc<Self>,
        request: &CacheMountRequest,
        seed: Option<Seed>,
        cx: &VertexContext,
    ) -> Option<Seed> {
        let wanted = |source: &Arc<super::Source>| source.wanted.mounts.has(&request.id);
        // Who builds without the cache wants to see it begin with nothing.
        if request.clear_for.is_some() || !self.lock().sources.iter().any(wanted) {
            return seed;
        }
        let (me, cx, mount, id) = (self.clone(), cx.clone(), request.digest(), request.id.clone());
        let runtime = tokio::runtime::Handle::current();
        Some(Box::new(move |dir| match runtime.block_on(me.bring_mount(mount, &id, dir, &cx)) {
            true => Ok(()),
            false => seed.map_or(Ok(()), |seed| seed(dir)),
        }))
    }

    /// A step uses an instance from now on.
    pub(in crate::daemon) fn mount_used(
        self: &Arc<Self>,
        request: &CacheMountRequest,
        instance: &str,
    ) -> MountUse {
        let mount = request.digest();
        let (id, instance) = (request.id.clone(), instance.to_owned());
        let mut mounts = lock(&self.mounts.0);
        let used = mounts.entry(mount).or_insert_with(|| UsedMount::new(id));
        used.instance = instance;
        drop(mounts);
        MountUse { caches: self.clone(), mount, well: false }
    }

    /// Notes what came into a mount.
    fn mount_brought(&self, mount: Digest, id: &str, from: (String, Scope), names: HashSet<SnapshotName>) {
        let mut mounts = lock(&self.mounts.0);
        let used = mounts.entry(mount).or_insert_with(|| UsedMount::new(id.to_owned()));
        used.brought.insert(from, names);
    }

    /// Whether a blob of a store was found to be something else.
    fn is_known_damaged(&self, store: &str, blob: &SharedBlob) -> bool {
        self.lock().damaged.contains(&(store.to_owned(), blob.clone()))
    }
}

impl UsedMount {
    fn new(id: String) -> Self {
        Self { id, instance: String::new(), spoilt: false, brought: HashMap::new() }
    }
}

/// What a mount is called where people read it: as in the Dockerfile.
fn shown(id: &str) -> &str {
    id.strip_prefix('/').unwrap_or(id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
