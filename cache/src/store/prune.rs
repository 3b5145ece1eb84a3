//! Garbage collection.
//!
//! Roots are named images, leases, past builds' logs and cache mounts in use. Entries are deleted by a synced
//! write *before* their files are unlinked, so a crash leaves files without an entry, never the reverse.

mod delete;
mod metadata;
mod trees;

use std::sync::PoisonError;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Store;
use super::disk::{self, DiskSpace};
use super::error::StoreError;
use super::filter::Filters;
use super::inventory::{Inventory, Item};
use super::policy::{PrunePolicy, sort_by_use};
use super::shared::Shared;
use super::usage::{UsageKind, UsageRecord};

/// What a prune removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Bytes on disk.
    pub bytes: u64,
    /// Layers, blobs on their own and cache mounts.
    pub items: usize,
}

impl Store {
    /// What takes space, in no order. Walks the cache mounts, so it blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Filter`] when a filter does not parse.
    pub fn du(&self, filters: &[String], unused_for: Duration) -> Result<Vec<UsageRecord>, StoreError> {
        let filters = Filters::parse::<UsageRecord>(filters)?;
        let cutoff = self.shared.cutoff_ms(unused_for);
        let mut items = self.shared.take_inventory()?.items;
        items.retain(|item| filters.matches(&item.record));
        items.retain(|item| unused_for.is_zero() || item.record.last_used_ms <= cutoff);
        items.iter_mut().for_each(|item| self.shared.measure(item));
        Ok(items.into_iter().map(|item| item.record).collect())
    }

    /// Removes what the policy does not keep, calling `removed` for each thing once it is gone. Blocks on the disk.
    ///
    /// [`PrunePolicy::all`] alone also forgets all records, trees and the stat cache (trees only when no build
    /// runs). Tagged images and what is in use always stay.
    ///
    /// # Errors
    /// [`StoreError::Interrupted`] when `cancel` fires: what is gone stays gone, the rest is untouched.
    pub fn prune(
        &self,
        policy: &PrunePolicy,
        cancel: &CancellationToken,
        removed: &mut dyn FnMut(&UsageRecord),
    ) -> Result<Pruned, StoreError> {
        self.prune_by("prune", policy, cancel, removed)
    }

    /// As [`Self::prune`], told as what the rule `name` did.
    fn prune_by(
        &self,
        name: &str,
        policy: &PrunePolicy,
        cancel: &CancellationToken,
        removed: &mut dyn FnMut(&UsageRecord),
    ) -> Result<Pruned, StoreError> {
        let _alone = self.shared.pruning.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = format!("{name}{policy}");
        let pruned = self.shared.prune_items(&rule, policy, cancel, removed)?;
        if policy.is_everything() {
            self.shared.forget_metadata(&rule)?;
        }
        if pruned.items > 0 || policy.is_everything() {
            self.shared.trim_evictions()?;
        }
        Ok(pruned)
    }

    /// Applies several policies in turn, as the daemon does after builds, and drops metadata nobody needs.
    pub fn collect(
        &self,
        policies: &[PrunePolicy],
        cancel: &CancellationToken,
    ) -> Result<Pruned, StoreError> {
        let mut total = Pruned::default();
        for (i, policy) in policies.iter().enumerate() {
            let name = format!("rule {} of garbage collection", i + 1);
            let pruned = self.prune_by(&name, policy, cancel, &mut |_| {})?;
            total.bytes += pruned.bytes;
            total.items += pruned.items;
        }
        self.shared.drop_old_records()?;
        self.shared.trim_accounts()?;
        self.sweep_trees(cancel)?;
        Ok(total)
    }

    /// Size and free space of the disk below the store.
    pub fn disk_space(&self) -> Result<DiskSpace, StoreError> {
        disk::space(self.shared.layout.root())
    }
}

impl Shared {
    fn take_inventory(&self) -> Result<Inventory, StoreError> {
        let state = self.leases.lock();
        let mounts = self.mounts.lock();
        self.inventory(&state, &mounts)
    }

    /// Before when something must have been used last to be unused for that long.
    fn cutoff_ms(&self, unused_for: Duration) -> u64 {
        self.now_ms().saturating_sub(u64::try_from(unused_for.as_millis()).unwrap_or(u64::MAX))
    }

    fn prune_items(
        &self,
        rule: &str,
        policy: &PrunePolicy,
        cancel: &CancellationToken,
        removed: &mut dyn FnMut(&UsageRecord),
    ) -> Result<Pruned, StoreError> {
        let filters = Filters::parse::<UsageRecord>(&policy.filters)?;
        let mut pruned = Pruned::default();
        loop {
            let mut inventory = self.take_inventory()?;
            let chosen = self.choose(policy, &filters, &mut inventory)?;
            let before = pruned.items;
            match self.delete_all(rule, &mut inventory, chosen, cancel, &mut pruned, removed)? {
                // What a thin layer was thin over can go when that is gone.
                delete::Outcome::Done if inventory.has_thin && pruned.items > before => {}
                delete::Outcome::Done => return Ok(pruned),
                // A layer or image began to name blobs: what may go has to be found out again.
                delete::Outcome::Stale => {}
            }
        }
    }

    /// What of the inventory goes, in order.
    fn choose(
        &self,
        policy: &PrunePolicy,
        filters: &Filters,
        inventory: &mut Inventory,
    ) -> Result<Vec<Item>, StoreError> {
        inventory.items.iter_mut().for_each(|item| self.measure(item));
        let total = inventory.items.iter().filter(|i| !i.record.shared).map(|i| i.record.size).sum();
        let free = disk::space(self.layout.root())?.free;
        let keep = policy.keep_bytes(total, free);
        let cutoff = self.cutoff_ms(policy.keep_duration);
        let mut chosen: Vec<Item> = inventory
            .items
            .iter()
            .filter(|item| !item.backs && may_go(&item.record, policy, cutoff))
            .filter(|item| filters.matches(&item.record))
            .cloned()
            .collect();
        sort_by_use(&mut chosen, |item| &item.record);
        if let Some(keep) = keep {
            let mut left = total;
            chosen.retain(|item| {
                let goes = left > keep;
                left = if goes { left.saturating_sub(item.record.size) } else { left };
                goes
            });
        }
        Ok(chosen)
    }
}

fn may_go(record: &UsageRecord, policy: &PrunePolicy, cutoff_ms: u64) -> bool {
    let internal = matches!(record.kind, UsageKind::Internal | UsageKind::Frontend);
    let recent = !policy.keep_duration.is_zero() && record.last_used_ms > cutoff_ms;
    !record.in_use && !record.shared && !recent && (policy.all || !internal)
}
