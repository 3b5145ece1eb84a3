//! What each step gave last: its next layer may be thin over that one ([`Backing`]).

use solver::{Digest, LayerId};

use super::error::StoreError;
use super::layers::Layers;
use super::lease::Lease;
use crate::layer::Backing;

impl Layers {
    /// The layer that a new one of `step` can be thin over, held under `lease`.
    ///
    /// # Errors
    /// The store cannot be read. A layer that is gone, damaged or too small to be worth it is `None`.
    pub fn backing_for(&self, lease: &Lease, step: &Digest) -> Result<Option<Backing>, StoreError> {
        let Some(last) = self.shared.tables.earlier.get(step)?.map(LayerId) else { return Ok(None) };
        let id = self.get(&last)?.and_then(|info| info.backing).unwrap_or(last);
        let Some(info) = self.get(&id)?.filter(|info| Backing::is_worthwhile(info.size, info.entries)) else {
            return Ok(None);
        };
        if info.backing.is_some() || !self.hold_present(lease, &id)? {
            return Ok(None);
        }
        match self.entries(&id) {
            Ok(entries) => Ok(Backing::new(id, self.shared.layout.snapshot_fs(&id), entries)),
            Err(StoreError::LayerMissing(_) | StoreError::LayerDamaged { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Notes what `step` gave.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note_last(&self, step: &Digest, id: &LayerId) -> Result<(), StoreError> {
        self.shared.tables.earlier.put(step, &id.0)
    }
}
