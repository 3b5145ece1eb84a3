//! Cache mounts that travel: brought in when a step first uses one that this machine has not, written at the end of the build.

mod choice;
mod current;
mod export;
mod import;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::keyed::Scope;
use cache::mounts::MountError;
use cache::store::{CacheMountLease, CacheMountRequest, Seed, StoreError};
use solver::digest::Hasher;
use solver::{Digest, ExecError, VertexContext};

use super::KeyedCaches;
use super::home::HomeError;
use super::place::KeyedPlace;
pub(super) use choice::MountChoice;
pub(in crate::daemon) use choice::{MERGEABLE, MOUNTS};

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
#[derive(Debug)]
struct UsedMount {
    /// As the Dockerfile calls it, with its namespace.
    id: String,
    /// In the order of their last use.
    instances: Vec<UsedInstance>,
}

#[derive(Debug)]
struct UsedInstance {
    name: String,
    /// A step that used it has not ended well: what it left may be half a thing, and stays here.
    spoilt: bool,
}

/// A mount that a step wants.
#[derive(Debug)]
pub(in crate::daemon) struct MountWish {
    caches: Arc<KeyedCaches>,
    mount: Digest,
    id: String,
    came: Arc<Mutex<Came>>,
}

/// What came into a new instance.
#[derive(Debug, Default)]
enum Came {
    /// Nothing; nobody has left anything, or nobody asked.
    #[default]
    Nothing,
    /// What these snapshots of a place hold.
    All(String, Vec<String>),
    /// Nothing for now: it is there.
    Missed,
}

impl MountWish {
    /// The step got this.
    pub(in crate::daemon) fn granted(self, lease: &CacheMountLease) -> MountUse {
        let Self { caches, mount, id, came } = self;
        let noted = match std::mem::take(&mut *lock(&came)) {
            Came::Nothing => Ok(()),
            Came::All(place, names) => lease.set_based_on(&place, names),
            // What has not what others left must not take the place of that: the next step tries again.
            Came::Missed => lease.retire(),
        };
        if let Err(error) = noted {
            tracing::warn!("cannot note what came into a cache mount: {error}");
        }
        let instance = lease.instance().to_owned();
        let mut mounts = lock(&caches.mounts.0);
        let used = mounts.entry(mount).or_insert_with(|| UsedMount { id, instances: Vec::new() });
        let at = used.instances.iter().position(|known| known.name == instance);
        let known = at.map(|at| used.instances.remove(at));
        let known = known.unwrap_or_else(|| UsedInstance { name: instance.clone(), spoilt: false });
        used.instances.push(known);
        drop(mounts);
        MountUse { caches, mount, instance, well: false }
    }
}

/// A step's use of a mount. Unless it is told that the step ended well, what it used is not written.
#[derive(Debug)]
pub(in crate::daemon) struct MountUse {
    caches: Arc<KeyedCaches>,
    mount: Digest,
    instance: String,
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
        if self.well {
            return;
        }
        let mut mounts = lock(&self.caches.mounts.0);
        let instances = mounts.get_mut(&self.mount).map(|used| used.instances.iter_mut());
        for instance in instances.into_iter().flatten().filter(|instance| instance.name == self.instance) {
            instance.spoilt = true;
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
    /// Others go on replacing what is there.
    #[error("what is there is replaced faster than it is read")]
    Restless,
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

impl TravelError {
    /// Whether it is about this mount, here and now, rather than about the store.
    fn is_of_the_mount(&self) -> bool {
        let of_mount = |error: &MountError| !matches!(error, MountError::Canceled | MountError::StatCache(_));
        match self {
            Self::Busy | Self::TooLarge | Self::Restless => true,
            Self::Mount(error) => of_mount(error),
            _ => false,
        }
    }
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
    /// What a step wants, and what fills a new instance of it: what others left of it, or else `seed`.
    pub(in crate::daemon) fn wish(
        self: &Arc<Self>,
        request: &CacheMountRequest,
        seed: Option<Seed>,
        cx: &VertexContext,
    ) -> (MountWish, Option<Seed>) {
        let (mount, id) = (request.digest(), request.id.clone());
        let came = Arc::default();
        let wish = MountWish { caches: self.clone(), mount, id: id.clone(), came: Arc::clone(&came) };
        let wanted = |source: &Arc<super::Source>| source.wanted.mounts.has(&id);
        // Who builds without the cache wants to see it begin with nothing.
        if request.clear_for.is_some() || !self.lock().sources.iter().any(wanted) {
            return (wish, seed);
        }
        let (me, cx, runtime) = (self.clone(), cx.clone(), tokio::runtime::Handle::current());
        let fill: Seed = Box::new(move |dir| {
            let brought = me.bring_mount(&runtime, mount, &id, dir, &cx);
            let all = matches!(brought, Ok(Came::All(..)));
            // A step that nobody waits for leaves no mount.
            *lock(&came) = brought.map_err(|error| std::io::Error::other(error.to_string()))?;
            if all { Ok(()) } else { seed.map_or(Ok(()), |seed| seed(dir)) }
        });
        (wish, Some(fill))
    }
}

/// What a scope of a store is called where instances note what they are based on.
fn place_name(place: &KeyedPlace, scope: &Scope) -> String {
    let mut hasher = Hasher::new("rbuild.cache-mount.place.v1");
    hasher.str(&place.id()).str(scope.as_str());
    hasher.finish().hex()
}

/// What a mount is called where people read it: as in the Dockerfile.
fn shown(id: &str) -> &str {
    id.strip_prefix('/').unwrap_or(id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
