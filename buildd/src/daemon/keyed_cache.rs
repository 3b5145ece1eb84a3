//! Keyed caches (`type=keyed`): records under the solver's own keys, which any number of machines write and read without a name agreed
//! on beforehand.
//!
//! A build that reads one asks for the records of its whole graph at once, before anything runs. A layer comes in when a step or an export
//! needs it, and is proved to be what its id says. What others say of a key is believed within the build that asked, and nowhere else.
//! A build that writes one sends each result as soon as there is one, and waits for what is under way at its end.

mod accounts;
mod bring;
mod directory;
mod home;
mod lend;
mod mounts;
mod place;
mod share;
mod sweep;
mod upload;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cache::keyed::{Scope, SharedBlob, SharedLayer};
use cache::oci::Reference;
use cache::tree::NodeId;
use solver::{Key, LayerId, VertexContext};

pub(in crate::daemon) use accounts::Left;
pub(in crate::daemon) use home::HomeError;
pub(super) use mounts::{MERGEABLE, MOUNTS, MountUse, Travels};
pub(in crate::daemon) use place::{KEYED, KeyedSource, KeyedTarget};

use super::explain::Asked;
use super::export::Packing;
use super::parts::Parts;
use super::progress::Teller;
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
    homes: tokio::sync::Mutex<HashMap<String, (KeyedPlace, Arc<Home>)>>,
    uploads: Uploads,
    /// How the build's images store their layers, where it exports any.
    image_form: OnceLock<Packing>,
    /// The cache mounts that the build's steps use.
    mounts: UsedMounts,
}

/// What a build knows of its caches.
#[derive(Default)]
struct Known {
    sources: Vec<Arc<Source>>,
    /// Where layers are that were lent.
    layers: HashMap<LayerId, Located>,
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
    /// Why it is not asked any more.
    failed: OnceLock<String>,
    /// What is wrong with the records under these keys.
    unacceptable: Mutex<HashMap<Key, &'static str>>,
}

impl Source {
    fn new(wanted: KeyedSource) -> Self {
        let (told, failed, unacceptable) = Default::default();
        Self { wanted, told, failed, unacceptable }
    }

    fn unacceptable(&self) -> MutexGuard<'_, HashMap<Key, &'static str>> {
        self.unacceptable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a layer is.
#[derive(Clone)]
struct Located {
    home: Arc<Home>,
    /// What the store is called.
    store: String,
    /// What tells it from others.
    id: String,
    layer: SharedLayer,
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
            homes: tokio::sync::Mutex::default(),
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
            let from = |layer: &LayerId| known.layers.get(layer).is_some_and(|located| located.id == id);
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
        let mut homes = self.homes.lock().await;
        if let Some((_, home)) = homes.get(&place.url).filter(|(known, _)| known == place) {
            return Ok(home.clone());
        }
        let home = Arc::new(place.open(&self.parts, cx).await?);
        homes.insert(place.url.clone(), (place.clone(), home.clone()));
        Ok(home)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
