//! Blobs: files named by the SHA-256 of their bytes.

mod writer;

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use fs_err as fs;
use serde::{Deserialize, Serialize};
use solver::Digest;

pub use writer::BlobWriter;

use super::db::{Batch, Sync};
use super::epoch::Epoch;
use super::error::StoreError;
use super::lease::Lease;
use super::shared::Shared;
use super::table::json_value;
use super::usage::{UsageKind, Use};
use super::verify::file_digest;

/// Names a blob with its length and type, as an OCI descriptor does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// The digest of the bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
    /// The media type.
    pub media_type: String,
}

/// What the store knows of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlobEntry {
    pub(super) size: u64,
    pub(super) kind: UsageKind,
    pub(super) description: String,
    pub(super) used: Use,
    pub(super) epoch: Epoch,
    /// Repositories of registries that are known to have it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) origins: BTreeSet<String>,
}

json_value!(BlobEntry);

/// What a blob is for, as `du` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlobPurpose {
    /// What kind of thing it is.
    pub kind: UsageKind,
    /// What it is for.
    pub description: String,
}

/// The blobs of a store.
#[derive(Debug, Clone)]
pub struct Blobs {
    pub(super) shared: Arc<Shared>,
}

impl Blobs {
    /// Starts a new blob.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        BlobWriter::create(&self.shared)
    }

    /// Stores `bytes` as a blob and holds it.
    pub fn put(&self, lease: &Lease, bytes: &[u8], purpose: BlobPurpose) -> Result<Digest, StoreError> {
        use std::io::Write;
        let digest = Digest::of(bytes);
        if self.hold(lease, &digest)?.is_some() {
            return Ok(digest);
        }
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(StoreError::io("write", &self.shared.layout.blob(&digest)))?;
        writer.commit(lease, Some(&digest), purpose)?;
        Ok(digest)
    }

    /// Holds a blob under `lease` and returns its length in bytes; `None` when it is not there. The first time for a
    /// lease counts as a use.
    pub fn hold(&self, lease: &Lease, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let mut state = self.shared.leases.lock();
        let Some(mut entry) = self.shared.tables.blobs.get(digest)? else { return Ok(None) };
        if lease.hold_blob(&mut state, digest) {
            entry.used.again(self.shared.now_ms());
            self.shared.tables.blobs.put(digest, &entry)?;
        }
        Ok(Some(entry.size))
    }

    /// Notes that a repository of a registry has a blob; nothing where the blob is not here.
    pub fn note_origin(&self, digest: &Digest, repository: &str) -> Result<(), StoreError> {
        let _state = self.shared.leases.lock();
        let Some(mut entry) = self.shared.tables.blobs.get(digest)? else { return Ok(()) };
        if entry.origins.insert(repository.to_owned()) {
            self.shared.tables.blobs.put(digest, &entry)?;
        }
        Ok(())
    }

    /// Whether a blob is here, and a repository of a registry is known to have it.
    pub fn has_origin(&self, digest: &Digest, repository: &str) -> Result<bool, StoreError> {
        let entry = self.shared.tables.blobs.get(digest)?;
        Ok(entry.is_some_and(|entry| entry.origins.contains(repository)))
    }

    /// The length of a blob in bytes; `None` when it is not there.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.shared.tables.blobs.get(digest)?.map(|entry| entry.size))
    }

    /// Opens a blob for reading.
    ///
    /// The bytes are as they are on disk: whoever passes them on to where nobody checks them hashes them, and
    /// calls [`Self::discard`] when they differ.
    ///
    /// # Errors
    /// [`StoreError::BlobMissing`] when it is not there.
    pub fn open(&self, digest: &Digest) -> Result<std::fs::File, StoreError> {
        if self.shared.tables.blobs.get(digest)?.is_none() {
            return Err(StoreError::BlobMissing(*digest));
        }
        let path = self.shared.layout.blob(digest);
        match fs::File::open(&path) {
            Ok(file) => Ok(file.into_parts().0),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.discard(digest)?;
                Err(StoreError::BlobMissing(*digest))
            }
            Err(e) => Err(StoreError::io("open", &path)(e)),
        }
    }

    /// Reads a small blob whole and verifies it.
    ///
    /// # Errors
    /// [`StoreError::BlobMissing`], [`StoreError::BlobTooLarge`], or [`StoreError::BlobDamaged`], after which the
    /// blob is gone and can be fetched again.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let file = self.open(digest)?;
        let path = self.shared.layout.blob(digest);
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(StoreError::io("read", &path))?;
        if bytes.len() as u64 > limit {
            let size = self.size(digest)?.unwrap_or(limit);
            return Err(StoreError::BlobTooLarge { digest: *digest, size, limit });
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            self.discard(digest)?;
            return Err(StoreError::BlobDamaged { digest: *digest, found });
        }
        Ok(bytes)
    }

    /// Hashes a blob.
    ///
    /// # Errors
    /// [`StoreError::BlobMissing`], or [`StoreError::BlobDamaged`], after which the blob is gone.
    pub fn check(&self, digest: &Digest) -> Result<(), StoreError> {
        if self.size(digest)?.is_none() {
            return Err(StoreError::BlobMissing(*digest));
        }
        match file_digest(&self.shared.layout.blob(digest))? {
            Some(found) if found == *digest => Ok(()),
            Some(found) => {
                self.discard(digest)?;
                Err(StoreError::BlobDamaged { digest: *digest, found })
            }
            None => {
                self.discard(digest)?;
                Err(StoreError::BlobMissing(*digest))
            }
        }
    }

    /// Removes a blob that turned out to be damaged, whoever needs it: it has to be fetched again.
    pub fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        let _state = self.shared.leases.lock();
        let mut batch = Batch::default();
        self.shared.tables.blobs.delete_in(&mut batch, digest);
        // Else a power cut could bring back the entry without the file.
        self.shared.db.write(&batch, Sync::Yes)?;
        let path = self.shared.layout.blob(digest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", &path)(e)),
            _ => Ok(()),
        }
    }
}
