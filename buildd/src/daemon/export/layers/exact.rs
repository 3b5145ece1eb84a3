//! Blobs that a manifest names already.

use cache::oci::{Compression, DEFAULT_ZSTD_LEVEL, media_type};
use solver::{Digest, ExecError, LayerId, VertexContext};

use super::pack::{is_plain, not_packed, packed_blob};
use super::{LayerBlob, LayerBlobs, TURNS};
use crate::daemon::blocking::blocking;

/// A layer's blob is gone, and packing the layer again gives other bytes.
#[derive(Debug, thiserror::Error)]
#[error(
    "layer `{layer}` cannot be packed as the blob `{blob}` again, which its image names: build the image again"
)]
struct LostBlob {
    layer: LayerId,
    blob: Digest,
}

impl LayerBlobs {
    /// Makes sure that exactly this blob of a layer exists here.
    ///
    /// # Errors
    /// A registry that does not give it, a layer that cannot be packed the same way again.
    pub(in crate::daemon::export) async fn exactly(
        &self,
        layer: &LayerBlob,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let _turn = TURNS.turn(layer.id).await;
        let info = self.held(layer.id).await?;
        if self.is_here(layer)? {
            return Ok(());
        }
        let (id, wanted) = (layer.id, layer.descriptor.digest);
        if let Some(source) = self.source(id, &info, cx).filter(|source| source.blob().digest == wanted) {
            return self.bring_in(id, source, cx).await.map(drop);
        }
        let compression = match layer.descriptor.media_type.as_str() {
            kind if is_plain(kind) => Compression::Uncompressed,
            media_type::OCI_LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => {
                Compression::Zstd { level: DEFAULT_ZSTD_LEVEL }
            }
            _ => Compression::default(),
        };
        let (store, lease) = (self.store.clone(), self.lease.clone());
        let packed = blocking(move || packed_blob(&store, id, &info, compression, &lease)).await;
        match packed.map_err(|e| not_packed(id, e))? {
            (_, blob) if blob.digest == wanted => Ok(()),
            _ => Err(ExecError::failed(LostBlob { layer: id, blob: wanted })),
        }
    }
}
