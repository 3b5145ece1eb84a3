//! Records, trees and the stat cache: they go after the layers.

use std::collections::HashSet;
use std::time::Duration;

use solver::{Key, LayerId};

use crate::store::db::{Batch, Cf, Sync};
use crate::store::error::StoreError;
use crate::store::records::RecordEntry;
use crate::store::shared::Shared;

/// A record whose layers are gone still lets what follows it be found. After this long nobody asks any more.
const KEEP_RECORDS: Duration = Duration::from_hours(60 * 24);

impl Shared {
    /// Forgets everything that can be made again from nothing.
    pub(super) fn forget_metadata(&self, rule: &str) -> Result<(), StoreError> {
        let mut cleared = vec![Cf::Records, Cf::Contents, Cf::StatCache, Cf::Earlier];
        // Under the lock, so that no build begins before its trees are safe from this.
        let state = self.leases.lock();
        if !state.any_running() {
            cleared.push(Cf::Trees);
        }
        let mut batch = Batch::default();
        cleared.iter().for_each(|cf| batch.clear(*cf));
        let records = self.tables.records.all()?.into_iter();
        let homes =
            records.filter_map(|(key, entry)| matches!(entry, RecordEntry::Record(_)).then_some(key.0));
        self.note_evictions(&mut batch, rule, homes);
        self.db.write(&batch, Sync::No)?;
        drop(state);
        cleared.iter().try_for_each(|cf| self.db.compact_cleared(*cf))
    }

    /// Drops old records of which no layer is left, and the names that lead to them.
    pub(super) fn drop_old_records(&self) -> Result<(), StoreError> {
        let cutoff = self.cutoff_ms(KEEP_RECORDS);
        let mut dropped: HashSet<Key> = HashSet::new();
        let mut aliases = Vec::new();
        for (key, entry) in self.tables.records.all()? {
            match entry {
                RecordEntry::Alias { home, .. } => aliases.push((key, home)),
                RecordEntry::Record(record) if record.created_ms < cutoff => {
                    let layers: Vec<_> = record.outputs.values().filter_map(|out| out.layer).collect();
                    if self.tables.layers.get_many(&layers)?.iter().all(Option::is_none) {
                        dropped.insert(key);
                    }
                }
                RecordEntry::Record(_) => {}
            }
        }
        let mut batch = Batch::default();
        dropped.iter().for_each(|key| self.tables.records.delete_in(&mut batch, key));
        let rule = "records without layers that are older than 60 days";
        self.note_evictions(&mut batch, rule, dropped.iter().map(|key| key.0));
        for (alias, _) in aliases.iter().filter(|(_, home)| dropped.contains(home)) {
            self.tables.records.delete_in(&mut batch, alias);
        }
        for (step, id) in self.tables.earlier.all()? {
            if self.tables.layers.get(&LayerId(id))?.is_none() {
                self.tables.earlier.delete_in(&mut batch, &step);
            }
        }
        self.db.write(&batch, Sync::No)
    }
}
