//! Typed tables over the database.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use solver::{Digest, Key, LayerId};

use super::db::{Batch, Cf, Db, Sync};
use super::error::StoreError;

/// What a table is ordered by.
pub(super) trait TableKey: Sized {
    /// The bytes of the key; at most 32, or UTF-8.
    fn to_bytes(&self) -> Vec<u8>;
    /// The key of these bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// What a table holds.
///
/// Metadata of which there is little is JSON: a field can be added without a new format, and LZ4 makes up for
/// the names. What comes in thousands (tree nodes, the stat cache) has bytes of its own.
pub(super) trait TableValue: Sized {
    /// The stored bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// The value of these bytes; `None` when they are damaged.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// Stores a serde type as JSON.
macro_rules! json_value {
    ($($type:ty),+ $(,)?) => {$(
        impl crate::store::table::TableValue for $type {
            fn to_bytes(&self) -> Vec<u8> {
                serde_json::to_vec(self).expect("plain data with string keys always serialises")
            }

            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                serde_json::from_slice(bytes).ok()
            }
        }
    )+};
}
pub(super) use json_value;

/// A column family with typed keys and values.
///
/// A damaged value reads as absent: everything kept here can be made or fetched again, and `verify` reports it.
pub(super) struct Table<K, V> {
    db: Arc<Db>,
    cf: Cf,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { db: Arc::clone(&self.db), cf: self.cf, types: PhantomData }
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.cf.name())
    }
}

impl<K: TableKey, V: TableValue> Table<K, V> {
    pub(super) fn new(db: &Arc<Db>, cf: Cf) -> Self {
        Self { db: Arc::clone(db), cf, types: PhantomData }
    }

    /// Reads one value.
    pub(super) fn get(&self, key: &K) -> Result<Option<V>, StoreError> {
        match self.db.get(self.cf, &key.to_bytes()) {
            Ok(bytes) => Ok(bytes.and_then(|bytes| self.decode(&bytes))),
            Err(e) => self.absent_if_damaged(e),
        }
    }

    /// Reads many values, in the order of `keys`.
    pub(super) fn get_many(&self, keys: &[K]) -> Result<Vec<Option<V>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = keys.iter().map(TableKey::to_bytes).collect();
        let found = self.db.multi_get(self.cf, &keys)?;
        found
            .into_iter()
            .map(|value| match value {
                Ok(bytes) => Ok(bytes.and_then(|bytes| self.decode(&bytes))),
                Err(source) => self.absent_if_damaged(self.read_error(source)),
            })
            .collect()
    }

    /// Writes one value, unsynced.
    pub(super) fn put(&self, key: &K, value: &V) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        self.put_in(&mut batch, key, value);
        self.db.write(&batch, Sync::No)
    }

    /// Adds a write to a batch.
    pub(super) fn put_in(&self, batch: &mut Batch, key: &K, value: &V) {
        batch.put(self.cf, key.to_bytes(), value.to_bytes());
    }

    /// Deletes one entry, unsynced.
    pub(super) fn delete(&self, key: &K) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        self.delete_in(&mut batch, key);
        self.db.write(&batch, Sync::No)
    }

    /// Adds a deletion to a batch.
    pub(super) fn delete_in(&self, batch: &mut Batch, key: &K) {
        batch.delete(self.cf, key.to_bytes());
    }

    /// All readable entries, in key order.
    pub(super) fn all(&self) -> Result<Vec<(K, V)>, StoreError> {
        let mut entries = Vec::new();
        self.scan(|key, value| {
            if let (Some(key), Some(value)) = (key, value) {
                entries.push((key, value));
            }
            true
        })?;
        Ok(entries)
    }

    /// Calls `visit` for each entry, `None` for what is damaged, until it returns `false`.
    pub(super) fn scan(&self, mut visit: impl FnMut(Option<K>, Option<V>) -> bool) -> Result<(), StoreError> {
        self.db.scan(self.cf, &mut |key, value| visit(K::from_bytes(key), V::from_bytes(value)))
    }

    fn decode(&self, bytes: &[u8]) -> Option<V> {
        let value = V::from_bytes(bytes);
        if value.is_none() {
            tracing::warn!(table = self.cf.name(), "damaged entry, taken as absent");
        }
        value
    }

    fn read_error(&self, source: rocksdb::Error) -> StoreError {
        StoreError::Database { action: "read", table: self.cf.name(), source }
    }

    fn absent_if_damaged<T>(&self, error: StoreError) -> Result<Option<T>, StoreError> {
        match error {
            StoreError::Database { source, .. } if source.kind() == rocksdb::ErrorKind::Corruption => {
                tracing::warn!(table = self.cf.name(), error = %source, "damaged block, entry taken as absent");
                Ok(None)
            }
            other => Err(other),
        }
    }
}

impl TableKey for Digest {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_bytes(bytes.try_into().ok()?))
    }
}

impl TableKey for LayerId {
    fn to_bytes(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Digest::from_bytes(bytes.try_into().ok()?)))
    }
}

impl TableKey for Key {
    fn to_bytes(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Digest::from_bytes(bytes.try_into().ok()?)))
    }
}

impl TableKey for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

/// A digest as a value is its 32 bytes.
impl TableValue for Digest {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_bytes(bytes.try_into().ok()?))
    }
}
