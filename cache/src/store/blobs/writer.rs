//! Writing a blob: temporary file, digest verified, rename, entry.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use fs_err as fs;
use solver::Digest;
use tempfile::TempPath;

use super::{BlobEntry, BlobPurpose};
use crate::hashing::Hashing;
use crate::store::error::StoreError;
use crate::store::lease::Lease;
use crate::store::shared::Shared;
use crate::store::usage::Use;
use crate::stream::StreamWriter;

/// A blob being written. Dropped without [`Self::commit`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    shared: Arc<Shared>,
    file: Hashing<StreamWriter>,
    place: TempPath,
}

impl BlobWriter {
    pub(super) fn create(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let tmp = shared.layout.tmp();
        let file = tempfile::Builder::new().prefix("blob-").tempfile_in(&tmp);
        let (file, place) = file.map_err(StoreError::io("create a file in", &tmp))?.into_parts();
        let file = Hashing::new(StreamWriter::new(file));
        Ok(Self { shared: Arc::clone(shared), file, place })
    }

    /// How many bytes were written.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// Ends the blob, checks its digest, and holds it under `lease`. Returns the digest of what was written.
    ///
    /// A blob that is there already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::BlobMismatch`] when the bytes are not those of `expected`; nothing is kept then.
    pub fn commit(
        self,
        lease: &Lease,
        expected: Option<&Digest>,
        purpose: BlobPurpose,
    ) -> Result<Digest, StoreError> {
        let Self { shared, file, place } = self;
        let (mut file, digest, size) = file.finish();
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(StoreError::BlobMismatch { expected: *expected, found: digest, found_size: size });
        }
        let path = shared.layout.blob(&digest);
        file.flush().map_err(StoreError::io("write", &path))?;
        let mut state = shared.leases.lock();
        if shared.tables.blobs.get(&digest)?.is_none() {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
            }
            place.persist(&path).map_err(|e| StoreError::io("create", &path)(e.error))?;
            let entry = BlobEntry {
                size,
                kind: purpose.kind,
                description: purpose.description,
                used: Use::new(shared.now_ms()),
                epoch: shared.epochs.stamp(),
                origins: BTreeSet::new(),
            };
            shared.tables.blobs.put(&digest, &entry)?;
        }
        lease.hold_blob(&mut state, &digest);
        Ok(digest)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
