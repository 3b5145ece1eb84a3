//! What each build holds in the store, until it ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cache::store::{Lease, Store};

/// The lease of each running build.
#[derive(Debug)]
pub(super) struct Leases {
    store: Store,
    by_build: Mutex<HashMap<String, Lease>>,
}

/// Ends a build's lease when dropped.
#[derive(Debug)]
pub(super) struct BuildLease {
    leases: Arc<Leases>,
    build: String,
}

impl Leases {
    /// No builds yet.
    pub(super) fn new(store: Store) -> Self {
        Self { store, by_build: Mutex::default() }
    }

    /// Begins the lease of a build.
    pub(super) fn begin(self: &Arc<Self>, build: &str) -> BuildLease {
        self.lock().insert(build.to_owned(), self.store.lease());
        BuildLease { leases: self.clone(), build: build.to_owned() }
    }

    /// The lease of a build; one of its own for work whose build has gone.
    pub(super) fn of(&self, build: &str) -> Lease {
        self.lock().get(build).cloned().unwrap_or_else(|| self.store.lease())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Lease>> {
        self.by_build.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BuildLease {
    fn drop(&mut self) {
        self.leases.lock().remove(&self.build);
    }
}
