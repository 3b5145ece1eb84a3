//! Cache records: key → record, and further keys as names of the same record.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use solver::{Kept, Key, Name, Put, Record, RecordError, RecordStore, StandsOn};

use super::Store;
use super::db::{Batch, Sync};
use super::error::StoreError;
use super::shared::Shared;
use super::table::json_value;

/// What a key leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RecordEntry {
    /// The record itself.
    Record(Record),
    /// Another name of a record.
    Alias {
        /// The key of the record, which lies there (or did, until it was pruned).
        home: Key,
        /// What it was made on.
        stands_on: StandsOn,
    },
}

json_value!(RecordEntry);

/// Orders the writers of records: reading what is there and replacing it is one step.
#[derive(Debug, Default)]
pub(super) struct RecordWriters(Mutex<()>);

/// A record and the key it lies under.
struct Found {
    home: Key,
    kept: Kept,
}

impl Shared {
    /// What each key leads to, aliases followed.
    fn find_records(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, StoreError> {
        let entries = self.tables.records.get_many(keys)?;
        let aliased: Vec<Key> = entries
            .iter()
            .filter_map(|entry| match entry {
                Some(RecordEntry::Alias { home, .. }) => Some(*home),
                _ => None,
            })
            .collect();
        let mut homes = self.tables.records.get_many(&aliased)?.into_iter();
        let found = keys.iter().zip(entries).map(|(key, entry)| match entry? {
            RecordEntry::Record(record) => Some(Found { home: *key, kept: Kept { record, stands_on: None } }),
            RecordEntry::Alias { home, stands_on } => match homes.next().flatten()? {
                RecordEntry::Record(record) => {
                    Some(Found { home, kept: Kept { record, stands_on: Some(stands_on) } })
                }
                RecordEntry::Alias { .. } => None, // aliases always name a home, so this one is damaged
            },
        });
        Ok(found.collect())
    }

    fn put_record(&self, key: Key, names: &[Name], record: Record, how: &Put) -> Result<Record, StoreError> {
        let _writing = self.record_writers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = self.find_records(&[key])?.pop().flatten();
        let (home, record, replace) = match (there, how) {
            (Some(there), Put::Replace(Some(old))) if there.kept.record == *old => (there.home, record, true),
            (Some(there), _) => (there.home, there.kept.record, false),
            // What was to be replaced is gone meanwhile: nothing to protect.
            (None, _) => (key, record, true),
        };
        let mut batch = Batch::default();
        if replace {
            self.tables.records.put_in(&mut batch, &home, &RecordEntry::Record(record.clone()));
        }
        for Name { key, stands_on } in names.iter().filter(|name| name.key != home) {
            let alias = RecordEntry::Alias { home, stands_on: stands_on.clone() };
            self.tables.records.put_in(&mut batch, key, &alias);
        }
        self.db.write(&batch, Sync::No)?;
        Ok(record)
    }

    fn alias_record(&self, name: Name, key: Key) -> Result<(), StoreError> {
        let _writing = self.record_writers.0.lock().unwrap_or_else(PoisonError::into_inner);
        match self.find_records(&[key])?.pop().flatten() {
            Some(found) if found.home != name.key => {
                let alias = RecordEntry::Alias { home: found.home, stands_on: name.stands_on };
                self.tables.records.put(&name.key, &alias)
            }
            _ => Ok(()),
        }
    }
}

impl Store {
    /// The records, for the solver.
    pub fn records(&self) -> Records {
        Records { shared: Arc::clone(&self.shared) }
    }
}

/// The records of a store.
///
/// Its methods do not wait for the disk: reads come from memory or the page cache and writes go to the log
/// unsynced, all within microseconds. So they run in place and not on a blocking thread.
#[derive(Debug, Clone)]
pub struct Records {
    shared: Arc<Shared>,
}

#[async_trait::async_trait]
impl RecordStore for Records {
    async fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Kept>>, RecordError> {
        let found = self.shared.find_records(keys).map_err(|e| failed("look up", keys, e))?;
        Ok(found.into_iter().map(|found| found.map(|f| f.kept)).collect())
    }

    async fn put(&self, key: Key, names: &[Name], record: Record, how: Put) -> Result<Record, RecordError> {
        self.shared.put_record(key, names, record, &how).map_err(|e| failed("write", &[key], e))
    }

    async fn alias(&self, name: Name, key: Key) -> Result<(), RecordError> {
        self.shared.alias_record(name, key).map_err(|e| failed("alias", &[key], e))
    }
}

fn failed(action: &str, keys: &[Key], error: StoreError) -> RecordError {
    let message = match keys {
        [key] => format!("cannot {action} `{key:?}`"),
        keys => format!("cannot {action} {} keys", keys.len()),
    };
    RecordError { message, source: Some(Box::new(error)) }
}
