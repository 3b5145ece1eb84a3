//! Deleting items: entries first, then files.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use solver::Digest;
use tokio_util::sync::CancellationToken;

use super::Pruned;
use crate::store::cache_mounts::Users;
use crate::store::db::{Batch, Sync};
use crate::store::error::StoreError;
use crate::store::inventory::{Inventory, Item, Target};
use crate::store::lease::LeaseState;
use crate::store::shared::Shared;
use crate::store::trash;
use crate::store::usage::UsageRecord;

/// So many items share one synced write. The leases are locked meanwhile, so it is a bound on how long a build
/// waits for a prune.
const CHUNK: usize = 64;

/// How far a deletion came.
pub(super) enum Outcome {
    /// All is gone.
    Done,
    /// The inventory does not hold any more.
    Stale,
}

/// An item without its entry, whose files still lie in the trash.
struct Deleted {
    record: UsageRecord,
    files: Vec<PathBuf>,
}

impl Shared {
    pub(super) fn delete_all(
        &self,
        rule: &str,
        inventory: &mut Inventory,
        chosen: Vec<Item>,
        cancel: &CancellationToken,
        pruned: &mut Pruned,
        removed: &mut dyn FnMut(&UsageRecord),
    ) -> Result<Outcome, StoreError> {
        for chunk in chosen.chunks(CHUNK) {
            if cancel.is_cancelled() {
                return Err(StoreError::Interrupted("prune"));
            }
            let Some(deleted) = self.delete_entries(rule, inventory, chunk)? else {
                return Ok(Outcome::Stale);
            };
            for item in deleted {
                item.files.iter().for_each(|path| trash::remove(path));
                pruned.bytes += item.record.size;
                pruned.items += 1;
                removed(&item.record);
            }
        }
        Ok(Outcome::Done)
    }

    /// Deletes the entries of those items that nobody took hold of meanwhile, and moves their files away.
    fn delete_entries(
        &self,
        rule: &str,
        inventory: &mut Inventory,
        chunk: &[Item],
    ) -> Result<Option<Vec<Deleted>>, StoreError> {
        let state = self.leases.lock();
        let mounts = self.mounts.lock();
        if state.links != inventory.links {
            return Ok(None);
        }
        let mut batch = Batch::default();
        let mut going = Vec::new();
        for item in chunk.iter().filter(|item| !held(item, &state, &mounts)) {
            going.push((item, self.delete_item(&mut batch, inventory, item, &state)));
        }
        if batch.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let layers = going.iter().filter_map(|(item, _)| match &item.target {
            Target::Layer(id, _) => Some(id.0),
            Target::Blob(_) | Target::Mount(_) => None,
        });
        self.note_evictions(&mut batch, rule, layers);
        self.db.write(&batch, Sync::Yes)?;
        let mut deleted = Vec::new();
        for (item, paths) in going {
            let mut files = Vec::new();
            for path in paths {
                files.extend(self.trash.take(&path)?);
            }
            deleted.push(Deleted { record: item.record.clone(), files });
        }
        Ok(Some(deleted))
    }

    /// Adds the deletion of an item's entries to the batch; returns its files.
    fn delete_item(
        &self,
        batch: &mut Batch,
        inventory: &mut Inventory,
        item: &Item,
        state: &LeaseState,
    ) -> Vec<PathBuf> {
        match &item.target {
            Target::Layer(id, blobs) => {
                self.tables.layers.delete_in(batch, id);
                let mut files = vec![self.layout.snapshot(id)];
                for digest in orphaned(inventory, blobs, state) {
                    self.tables.blobs.delete_in(batch, &digest);
                    files.push(self.layout.blob(&digest));
                }
                files
            }
            Target::Blob(digest) => {
                self.tables.blobs.delete_in(batch, digest);
                vec![self.layout.blob(digest)]
            }
            Target::Mount(name) => {
                self.tables.cache_mounts.delete_in(batch, name);
                vec![self.layout.cache_mounts().join(name)]
            }
        }
    }
}

/// Which of a layer's blobs nobody needs once the layer is gone.
fn orphaned(inventory: &mut Inventory, blobs: &[Digest], state: &LeaseState) -> Vec<Digest> {
    let mut orphaned = Vec::new();
    for digest in blobs.iter().copied().collect::<HashSet<_>>() {
        let owners = inventory.owners.entry(digest).or_insert(1);
        *owners = owners.saturating_sub(1);
        if *owners == 0 && !inventory.kept_blobs.contains(&digest) && !state.holds_blob(&digest) {
            orphaned.push(digest);
        }
    }
    orphaned
}

fn held(item: &Item, state: &LeaseState, mounts: &HashMap<String, Users>) -> bool {
    match &item.target {
        Target::Layer(id, _) => state.holds_layer(id),
        Target::Blob(digest) => state.holds_blob(digest),
        Target::Mount(name) => mounts.contains_key(name),
    }
}
