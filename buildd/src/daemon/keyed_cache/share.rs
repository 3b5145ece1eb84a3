//! What is written of a layer: its tar stream and the list of its entries.

use std::io::Write as _;

use cache::keyed::{SharedBlob, SharedLayer, pack};
use cache::oci::{Compression, Descriptor};
use cache::store::{BlobPurpose, BlobRef};
use solver::{Digest, ExecError, LayerId, VertexContext};

use super::KeyedCaches;
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::export::{Form, pack_apart};

/// What the list of a layer's entries is.
const ENTRIES_TYPE: &str = "application/vnd.rbuild.entries.v1+zstd";
/// How the tar streams of layers are compressed that are part of no image: they are read more often than written.
const COMPRESSION: Compression = Compression::Zstd { level: 3 };

impl KeyedCaches {
    /// A layer as it is shared, its blobs being here as long as the build's lease lasts. `in_image`: it is going to be part of what
    /// the build exports.
    ///
    /// # Errors
    /// A layer that was pruned; a full disk.
    pub(super) async fn shared(
        &self,
        id: LayerId,
        in_image: bool,
        cx: &VertexContext,
    ) -> Result<SharedLayer, ExecError> {
        let (store, lease) = (self.parts.chains.store.clone(), self.parts.leases.of(&cx.build));
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
            Ok::<_, ExecError>((info, SharedBlob { digest, size: entries.len() as u64, media_type }))
        });
        let (info, entries) = work.await?;
        let created_ms = info.created_ms();
        let (diff_id, tar): (Digest, SharedBlob) = match self.image_form.get().filter(|_| in_image) {
            Some(packing) => {
                let blobs = self.parts.exporter.layer_blobs(Form::Blobs(*packing), &cx.build);
                let layer = blobs.one(id, cx).await?;
                let Descriptor { digest, size, media_type, .. } = layer.descriptor;
                (layer.diff_id, SharedBlob { digest, size, media_type })
            }
            // An image that the layer becomes part of some day keeps the form that it would have had.
            None => {
                let (store, lease) = (self.parts.chains.store.clone(), self.parts.leases.of(&cx.build));
                let packed = blocking(move || pack_apart(&store, id, &info, COMPRESSION, &lease));
                let (diff_id, BlobRef { digest, size, media_type }) = packed.await?;
                (diff_id, SharedBlob { digest, size, media_type })
            }
        };
        Ok(SharedLayer { id, entries, tar, diff_id, created_ms })
    }
}
