//! What garbage collection took, when and by which rule: for who asks why a step ran again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use solver::{Digest, Key, LayerId};

use super::db::{Batch, Sync};
use super::error::StoreError;
use super::shared::Shared;
use super::table::json_value;

/// So many are remembered, the newest.
const MAX_EVICTIONS: usize = 10_000;

/// That something was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eviction {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// By which rule, in words.
    pub rule: String,
}

json_value!(Eviction);

/// The evictions of a store.
#[derive(Debug, Clone)]
pub struct Evictions {
    pub(super) shared: Arc<Shared>,
}

impl Evictions {
    /// The latest eviction of a layer.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn of_layer(&self, layer: &LayerId) -> Result<Option<Eviction>, StoreError> {
        self.shared.tables.evictions.get(&layer.0)
    }

    /// The latest eviction of the record under a key.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn of_record(&self, key: &Key) -> Result<Option<Eviction>, StoreError> {
        self.shared.tables.evictions.get(&key.0)
    }
}

impl Shared {
    /// Adds to `batch` that these go.
    pub(super) fn note_evictions(
        &self,
        batch: &mut Batch,
        rule: &str,
        what: impl IntoIterator<Item = Digest>,
    ) {
        let eviction = Eviction { at_ms: self.now_ms(), rule: rule.to_owned() };
        what.into_iter().for_each(|id| self.tables.evictions.put_in(batch, &id, &eviction));
    }

    /// Forgets the oldest, where there are too many.
    pub(super) fn trim_evictions(&self) -> Result<(), StoreError> {
        let mut all: Vec<(u64, Digest)> = Vec::new();
        self.tables.evictions.scan(|id, eviction| {
            all.extend(id.zip(eviction).map(|(id, eviction)| (eviction.at_ms, id)));
            true
        })?;
        let surplus = all.len().saturating_sub(MAX_EVICTIONS);
        if surplus == 0 {
            return Ok(());
        }
        all.sort_unstable();
        let mut batch = Batch::default();
        all.iter().take(surplus).for_each(|(_, id)| self.tables.evictions.delete_in(&mut batch, id));
        self.db.write(&batch, Sync::No)
    }
}
