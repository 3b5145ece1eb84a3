//! Keyed caches (`type=keyed`): records under the solver's own keys, which any number of machines write and read without a name agreed
//! on beforehand.
//!
//! A build that reads one asks for the records of its whole graph at once, before anything runs. A layer comes in when a step or an export
//! needs it, and is proved to be what its id says. What others say of a key is believed within the build that asked, and nowhere else.
//! A build that writes one sends each result as soon as there is one, and waits for what is under way at its end.

mod accounts;
mod bring;
mod directory;
mod ending;
mod faults;
mod home;
mod lend;
mod mounts;
mod place;
mod share;
mod sweep;
mod traffic;
mod upload;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cache::keyed::{Scope, SharedBlob, SharedLayer};
use cache::oci::Reference;
use cache::tree::NodeId;
use solver::{Key, LayerId, VertexContext};
use tokio::sync::OnceCell;

pub(in crate::daemon) use accounts::Left;
pub(in crate::daemon) use home::HomeError;
pub(super) use mounts::{MERGEABLE, MOUNTS, MountUse, Travels};
pub(in crate::daemon) use place::{KEYED, KeyedSource, KeyedTarget};

use super::explain::Asked;
use super::export::Packing;
use super::parts::Parts;
use super::progress::Teller;
use faults::Faults;
use home::Home;
use mounts::UsedMounts;
use place::KeyedPlace;
use upload::Uploads;

/// The keyed caches of one build.
pub(super) struct KeyedCaches {
    parts: Arc<Parts>,
    teller: Teller,
    known: Mutex<Known>,
    /// Stores that are talked to.
    homes: Mutex<Vec<(KeyedPlace, Opened)>>,
    uploads: Uploads,
    /// How the build's images store their layers, where it exports any.
    image_form: OnceLock<Packing>,
    /// The cache mounts that the build's steps use.
    mounts: UsedMounts,
}

/// A store that is talked to, once somebody has opened it.
type Opened = Arc<OnceCell<Arc<Home>>>;

/// What a build knows of its caches.
#[derive(Default)]
struct Known {
    sources: Vec<Arc<Source>>,
    /// Where layers are that were lent: the places, the best first.
    layers: HashMap<LayerId, Vec<Located>>,
    /// Those that cannot be had, and why.
    refused: HashMap<LayerId, String>,
    /// What chains of layers were found to contain.
    contents: HashMap<Vec<LayerId>, NodeId>,
    /// What lies in which store and need not be written there.
    there: HashSet<(String, Scope, Key)>,
    /// Blobs of a store that are not what they should be.
    damaged: HashSet<(String, SharedBlob)>,
}

/// A cache to look into.
struct Source {
    wanted: KeyedSource,
    /// It was told that it is looked into.
    told: AtomicBool,
    /// Something could be read of it.
    works: AtomicBool,
    /// Why it is not asked any more.
    failed: OnceLock<String>,
    /// What is wrong with the records under these keys.
    unacceptable: Mutex<HashMap<Key, &'static str>>,
    faults: Mutex<Faults>,
}

impl Source {
    fn new(wanted: KeyedSource) -> Self {
        let (told, works, failed, unacceptable, faults) = Default::default();
        Self { wanted, told, works, failed, unacceptable, faults }
    }

    fn unacceptable(&self) -> MutexGuard<'_, HashMap<Key, &'static str>> {
        self.unacceptable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a layer is.
#[derive(Clone)]
struct Located {
    /// Less is better.
    rank: Rank,
    home: Arc<Home>,
    /// What the store is called.
    store: String,
    /// What tells it from others.
    id: String,
    layer: SharedLayer,
    /// It could not be had from there.
    spent: bool,
}

/// How good a place for layers is: whose records have to be signed, then in the order that the client named them.
type Rank = (bool, usize, usize);

impl Known {
    /// The rank of what a scope of a source says.
    fn rank(&self, wanted: &KeyedSource, scope: &Scope) -> Rank {
        let source = self.sources.iter().position(|source| source.wanted == *wanted);
        let scope = wanted.scopes.iter().position(|known| known == scope);
        (wanted.trust.is_anybody(), source.unwrap_or(usize::MAX), scope.unwrap_or(usize::MAX))
    }

    /// Adds a place to those that a layer has.
    fn locate(&mut self, located: Located) {
        let places = self.layers.entry(located.layer.id).or_default();
        if !places.iter().any(|known| known.id == located.id && known.layer == located.layer) {
            let at = places.partition_point(|known| known.rank <= located.rank);
            places.insert(at, located);
        }
    }

    /// The best place of a layer that is left.
    fn located(&self, id: &LayerId) -> Option<&Located> {
        let places = self.layers.get(id).filter(|_| !self.refused.contains_key(id))?;
        places.iter().find(|located| !located.spent)
    }

    /// Does without a place from now on; whether there is another one.
    fn pass_over(&mut self, spent: &Located) -> bool {
        let Some(places) = self.layers.get_mut(&spent.layer.id) else { return false };
        for known in places.iter_mut().filter(|known| known.id == spent.id && known.layer == spent.layer) {
            known.spent = true;
        }
        places.iter().any(|located| !located.spent)
    }
}

impl std::fmt::Debug for KeyedCaches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedCaches").field("mounts", &self.mounts).finish_non_exhaustive()
    }
}

impl KeyedCaches {
    /// No caches yet.
    pub(super) fn new(parts: &Arc<Parts>, teller: Teller) -> Self {
        Self {
            parts: parts.clone(),
            teller,
            known: Mutex::default(),
            homes: Mutex::default(),
            uploads: Uploads::default(),
            image_form: OnceLock::new(),
            mounts: UsedMounts::default(),
        }
    }

    /// Looks into this one, too, from now on.
    pub(super) fn add(&self, wanted: KeyedSource) {
        let mut known = self.lock();
        if !known.sources.iter().any(|source| source.wanted == wanted) {
            known.sources.push(Arc::new(Source::new(wanted)));
        }
    }

    /// The build exports images that store their layers so. The same blobs are shared then: no layer is compressed or stored twice.
    pub(super) fn images_are(&self, packing: Packing) {
        let _ = self.image_form.set(packing);
    }

    /// Whether any is looked into.
    pub(super) fn reads(&self) -> bool {
        !self.lock().sources.is_empty()
    }

    /// All that are looked into, as explanations tell of them.
    pub(super) fn asked(&self) -> Vec<Asked> {
        let known = self.lock();
        let one = |source: &Arc<Source>| {
            let id = source.wanted.place.id();
            let from = |layer: &LayerId| {
                known.layers.get(layer).is_some_and(|places| places.iter().any(|located| located.id == id))
            };
            let lost = known.refused.iter().filter(|(layer, _)| from(layer));
            Asked {
                name: source.wanted.name(),
                error: source.failed.get().cloned(),
                found: known.there.iter().filter(|(store, ..)| *store == id).map(|(.., key)| *key).collect(),
                refused: source.unacceptable().iter().map(|(key, why)| (*key, (*why).to_owned())).collect(),
                lost: lost.map(|(layer, why)| (*layer, why.clone())).collect(),
            }
        };
        known.sources.iter().map(one).collect()
    }

    /// The repositories that have the build's caches, which it writes or may read.
    pub(super) fn repositories(&self) -> Vec<Reference> {
        let sources = self.lock().sources.clone();
        let read = sources.iter().filter_map(|source| source.wanted.place.repository().cloned());
        self.uploads.repositories().into_iter().chain(read).collect()
    }

    async fn home(&self, place: &KeyedPlace, cx: &VertexContext) -> Result<Arc<Home>, HomeError> {
        let opened = {
            let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
            match homes.iter().find(|(known, _)| known == place) {
                Some((_, home)) => home.clone(),
                None => {
                    let home = Arc::new(OnceCell::new());
                    homes.push((place.clone(), home.clone()));
                    home
                }
            }
        };
        let open = || async { place.open(&self.parts, cx).await.map(Arc::new) };
        opened.get_or_try_init(open).await.cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
