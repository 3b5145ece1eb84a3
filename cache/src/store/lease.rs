//! Leases: what a running build or container holds, so that no garbage collection takes it.
//!
//! A [`Lease`] lives in memory, since builds die with their daemon. A [named lease](super::Store::hold) is kept
//! on disk: a container outlives the daemon that started it.
//!
//! One mutex orders holding against deleting: whoever gets hold of an object has seen its entry under the mutex,
//! and a prune checks and deletes entries under it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use solver::{Digest, LayerId};

use super::table::json_value;

/// What a named lease holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Layers, each with its blobs.
    pub layers: BTreeSet<LayerId>,
    /// Blobs on their own.
    pub blobs: BTreeSet<Digest>,
}

json_value!(Held);

/// All leases of the process.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases(Arc<Mutex<LeaseState>>);

/// What is held, by how many.
#[derive(Debug, Default)]
pub(super) struct LeaseState {
    layers: HashMap<LayerId, usize>,
    blobs: HashMap<Digest, usize>,
    /// Unnamed leases alive: running builds.
    running: usize,
    /// How many unnamed leases there ever were.
    begun: u64,
    /// Raised whenever an object starts to name others, so that a prune notices that its plan is old.
    pub(super) links: u64,
}

impl Leases {
    /// A new lease that holds nothing yet.
    pub(super) fn begin(&self) -> Lease {
        let mut state = self.lock();
        state.running += 1;
        state.begun += 1;
        drop(state);
        Lease(Arc::new(LeaseInner { leases: self.clone(), held: Mutex::new(Held::default()) }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LeaseState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeaseState {
    pub(super) fn holds_layer(&self, id: &LayerId) -> bool {
        self.layers.contains_key(id)
    }

    pub(super) fn holds_blob(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest)
    }

    /// While this stays the same, no build runs and none has begun; `None` when one runs.
    pub(super) fn quiet_since(&self) -> Option<u64> {
        (self.running == 0).then_some(self.begun)
    }

    /// Whether any build runs.
    pub(super) fn any_running(&self) -> bool {
        self.running > 0
    }

    pub(super) fn add(&mut self, held: &Held) {
        for id in &held.layers {
            *self.layers.entry(*id).or_default() += 1;
        }
        for digest in &held.blobs {
            *self.blobs.entry(*digest).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, held: &Held) {
        held.layers.iter().for_each(|id| release(&mut self.layers, id));
        held.blobs.iter().for_each(|digest| release(&mut self.blobs, digest));
    }
}

fn release<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Holds layers and blobs until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Lease(Arc<LeaseInner>);

#[derive(Debug)]
struct LeaseInner {
    leases: Leases,
    held: Mutex<Held>,
}

impl Lease {
    /// Adds a layer. `state` is locked and the layer was seen, or is being written, under it.
    /// Whether it was not held by this lease before.
    pub(super) fn hold_layer(&self, state: &mut LeaseState, id: &LayerId) -> bool {
        let new = self.held().layers.insert(*id);
        if new {
            *state.layers.entry(*id).or_default() += 1;
        }
        new
    }

    /// Adds a blob, as [`Self::hold_layer`].
    pub(super) fn hold_blob(&self, state: &mut LeaseState, digest: &Digest) -> bool {
        let new = self.held().blobs.insert(*digest);
        if new {
            *state.blobs.entry(*digest).or_default() += 1;
        }
        new
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LeaseInner {
    fn drop(&mut self) {
        let held = std::mem::take(self.held.get_mut().unwrap_or_else(PoisonError::into_inner));
        let mut state = self.leases.lock();
        state.remove(&held);
        state.running -= 1;
    }
}
