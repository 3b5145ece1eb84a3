//! What is written of a layer: its tar stream and the list of its entries.

use std::io::Write as _;

use cache::keyed::{SharedBlob, SharedLayer, pack};
use cache::oci::Compression;
use cache::store::BlobPurpose;
use solver::{ExecError, LayerId};

use super::KeyedCaches;
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::export::pack_apart;

/// What the list of a layer's entries is.
const ENTRIES_TYPE: &str = "application/vnd.rbuild.entries.v1+zstd";
/// How tar streams are compressed that have no compressed form yet: they are read more often than written.
const COMPRESSION: Compression = Compression::Zstd { level: 3 };

impl KeyedCaches {
    /// A layer as it is shared, its blobs being here as long as the build's lease lasts.
    ///
    /// # Errors
    /// A layer that was pruned; a full disk.
    pub(super) async fn shared(&self, id: LayerId, build: &str) -> Result<SharedLayer, ExecError> {
        let (store, lease) = (self.parts.chains.store.clone(), self.parts.leases.of(build));
        let work = blocking(move || {
            let layers = store.layers();
            let info = layers.hold(&lease, &id).map_err(from_store)?.filter(|info| info.present);
            let info = info.ok_or_else(|| ExecError::Changed { path: id.to_string() })?;
            let entries = pack(&layers.entries(&id).map_err(from_store)?).map_err(ExecError::failed)?;
            let mut writer = store.blobs().writer().map_err(from_store)?;
            writer.write_all(&entries).map_err(ExecError::failed)?;
            let purpose = BlobPurpose { description: "shared layer".to_owned(), ..BlobPurpose::default() };
            let digest = writer.commit(&lease, None, purpose).map_err(from_store)?;
            let media_type = ENTRIES_TYPE.to_owned();
            let entries = SharedBlob { digest, size: entries.len() as u64, media_type };
            // An image that the layer is part of keeps the form that it would have had.
            let (diff_id, tar) = pack_apart(&store, id, &info, COMPRESSION, &lease)?;
            let tar = SharedBlob { digest: tar.digest, size: tar.size, media_type: tar.media_type };
            Ok(SharedLayer { id, entries, tar, diff_id, created_ms: info.created_ms() })
        });
        work.await
    }
}
