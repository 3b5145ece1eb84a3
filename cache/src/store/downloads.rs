//! What servers gave, for asking them whether they still would.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use solver::Digest;

use super::db::{Batch, Sync};
use super::error::StoreError;
use super::shared::Shared;
use super::table::json_value;

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadRecord {
    /// The validator that came with it (RFC 9110, section 8.8.3), as it came.
    pub etag: String,
    /// The blob of its body.
    pub body: Digest,
    /// The file's name.
    pub name: String,
    /// When the server says that it was changed, in nanoseconds since 1970.
    pub modified: Option<i64>,
}

json_value!(DownloadRecord);

/// The downloads of a store, by the digests of their requests. Those whose bodies are gone are forgotten.
#[derive(Debug)]
pub struct Downloads {
    pub(super) shared: Arc<Shared>,
}

impl Downloads {
    /// What was answered to a request, if its body is still here.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn get(&self, request: &Digest) -> Result<Option<DownloadRecord>, StoreError> {
        let Some(record) = self.shared.tables.downloads.get(request)? else { return Ok(None) };
        Ok(self.shared.tables.blobs.get(&record.body)?.map(|_| record))
    }

    /// Notes an answer in place of the one before.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn put(&self, request: &Digest, record: &DownloadRecord) -> Result<(), StoreError> {
        self.shared.tables.downloads.put(request, record)
    }
}

/// Forgets the answers without bodies.
pub(super) fn sweep(shared: &Shared) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    for (request, record) in shared.tables.downloads.all()? {
        if shared.tables.blobs.get(&record.body)?.is_none() {
            shared.tables.downloads.delete_in(&mut batch, &request);
        }
    }
    match batch.is_empty() {
        true => Ok(()),
        false => shared.db.write(&batch, Sync::No),
    }
}
