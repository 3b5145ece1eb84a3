//! Named leases: for what outlives the daemon.

use super::Store;
use super::db::{Batch, Sync};
use super::error::StoreError;
use super::lease::Held;
use super::shared::Shared;

impl Store {
    /// Holds layers and blobs under a name until [`Self::release`], also across restarts. A name that exists is
    /// replaced.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] or [`StoreError::BlobMissing`] when something is not in the store.
    pub fn hold(&self, name: &str, held: &Held) -> Result<(), StoreError> {
        let shared = &self.shared;
        let mut state = shared.leases.lock();
        let layers: Vec<_> = held.layers.iter().copied().collect();
        let found = shared.tables.layers.get_many(&layers)?;
        if let Some((id, _)) = layers.iter().zip(found).find(|(_, info)| info.is_none()) {
            return Err(StoreError::LayerMissing(*id));
        }
        let blobs: Vec<_> = held.blobs.iter().copied().collect();
        let found = shared.tables.blobs.get_many(&blobs)?;
        if let Some((digest, _)) = blobs.iter().zip(found).find(|(_, entry)| entry.is_none()) {
            return Err(StoreError::BlobMissing(*digest));
        }
        let before = shared.tables.leases.get(&name.to_owned())?;
        shared.tables.leases.put(&name.to_owned(), held)?;
        state.add(held);
        if let Some(before) = before {
            state.remove(&before);
        }
        Ok(())
    }

    /// Ends a named lease. Returns `false` when there is none of that name.
    pub fn release(&self, name: &str) -> Result<bool, StoreError> {
        let shared = &self.shared;
        let mut state = shared.leases.lock();
        let Some(held) = shared.tables.leases.get(&name.to_owned())? else { return Ok(false) };
        shared.tables.leases.delete(&name.to_owned())?;
        state.remove(&held);
        Ok(true)
    }

    /// The names of all named leases, sorted.
    pub fn named_leases(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.shared.tables.leases.all()?.into_iter().map(|(name, _)| name).collect())
    }
}

impl Shared {
    /// Takes up the named leases that an earlier process left, without what recovery had to drop.
    pub(super) fn load_named_leases(&self) -> Result<(), StoreError> {
        let mut state = self.leases.lock();
        let mut batch = Batch::default();
        for (name, mut held) in self.tables.leases.all()? {
            let all = held.clone();
            held.layers.retain(|id| matches!(self.tables.layers.get(id), Ok(Some(_))));
            held.blobs.retain(|digest| matches!(self.tables.blobs.get(digest), Ok(Some(_))));
            if held != all {
                tracing::warn!(lease = name, "a lease lost some of what it held");
                self.tables.leases.put_in(&mut batch, &name, &held);
            }
            state.add(&held);
        }
        self.db.write(&batch, Sync::No)
    }
}
