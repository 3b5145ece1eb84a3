//! Reading what an instance holds while no step works in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CacheMounts;
use super::acquire::end_reading;
use super::state::Users;
use crate::store::error::StoreError;
use crate::store::shared::Shared;

/// An instance that nobody uses, and that nobody begins to use until this is dropped: who shares it waits.
#[derive(Debug)]
pub struct MountReading {
    shared: Arc<Shared>,
    name: String,
    dir: PathBuf,
}

impl CacheMounts {
    /// Waits until nobody uses an instance ([`super::CacheMountLease::instance`]); `None` where it is no more.
    pub async fn read(&self, instance: &str) -> Result<Option<MountReading>, StoreError> {
        let shared = &self.shared;
        loop {
            let mut changed = std::pin::pin!(shared.mounts.changed.notified());
            changed.as_mut().enable();
            {
                let mut in_use = shared.mounts.lock();
                let known = shared.tables.cache_mounts.get(&instance.to_owned())?;
                if known.is_none_or(|entry| entry.retired) {
                    return Ok(None);
                }
                if !in_use.contains_key(instance) {
                    in_use.insert(instance.to_owned(), Users::reader());
                    let dir = shared.layout.cache_mounts().join(instance);
                    return Ok(Some(MountReading { shared: shared.clone(), name: instance.to_owned(), dir }));
                }
            }
            changed.await;
        }
    }
}

impl CacheMounts {
    /// Notes what an instance was written as elsewhere ([`MountReading::based_on`]).
    ///
    /// # Errors
    /// When that cannot be stored.
    pub fn set_based_on(&self, instance: &str, place: &str, names: Vec<String>) -> Result<(), StoreError> {
        set_based_on(&self.shared, instance, place, names)
    }
}

pub(super) fn set_based_on(
    shared: &Shared,
    instance: &str,
    place: &str,
    names: Vec<String>,
) -> Result<(), StoreError> {
    // Whoever takes or gives an instance back changes its entry, too.
    let _in_use = shared.mounts.lock();
    let name = instance.to_owned();
    let Some(mut entry) = shared.tables.cache_mounts.get(&name)? else { return Ok(()) };
    entry.based_on.insert(place.to_owned(), names);
    shared.tables.cache_mounts.put(&name, &entry)
}

impl MountReading {
    /// What it was filled with from a place elsewhere, or last written as there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn based_on(&self, place: &str) -> Result<Vec<String>, StoreError> {
        let entry = self.shared.tables.cache_mounts.get(&self.name)?;
        Ok(entry.and_then(|entry| entry.based_on.get(place).cloned()).unwrap_or_default())
    }

    /// The directory to read.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for MountReading {
    fn drop(&mut self) {
        let mut in_use = self.shared.mounts.lock();
        in_use.remove(&self.name);
        if let Err(e) = end_reading(&self.shared, &self.name) {
            tracing::warn!(mount = self.name, error = %e, "cannot remove a cache mount that was cleared");
        }
        drop(in_use);
        self.shared.mounts.changed.notify_waiters();
    }
}
