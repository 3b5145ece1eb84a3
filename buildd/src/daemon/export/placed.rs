//! Large layers, written straight into an archive.
//!
//! A blob in the store would be written, read again and hashed again only to be copied, and be as large as the archive.
//! So the first time a layer is packed into the archive itself; whoever exports it again gets the blob that makes
//! further exports cheap.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use cache::Hashing;
use cache::oci::{Amend, ArchiveWriter, Descriptor};
use cache::store::{LayerInfo, Store};
use solver::{ExecError, LayerId, VertexContext};

use super::archive::StoreBlobs;
use super::layers::{LayerBlob, LayerBlobs, Packing, TURNS, not_packed, pack};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;

/// Bytes of files from which on a layer is large.
const LARGE: u64 = 64 << 20;
/// Layers that are remembered.
const MEMORY: usize = 4096;

/// Layers that were packed into an archive since the daemon started.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<HashSet<LayerId>>);

impl Seen {
    /// Notes a layer; says whether it was noted before.
    pub(super) fn again(&self, id: LayerId) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MEMORY {
            seen.clear();
        }
        !seen.insert(id)
    }
}

impl LayerBlobs {
    /// The large layers of chains, each once, lowest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn large<'a>(
        &self,
        chains: impl Iterator<Item = &'a [LayerId]>,
    ) -> Result<Vec<LayerId>, ExecError> {
        let mut large = Vec::new();
        for id in chains.flatten() {
            let size = self.store.layers().get(id).map_err(from_store)?.map_or(0, |info| info.size);
            if size >= LARGE && !large.contains(id) {
                large.push(*id);
            }
        }
        Ok(large)
    }

    /// Writes a layer into an archive: a copy of its blob, or, for one that has none and was not `seen`, what is made of
    /// it now.
    ///
    /// # Errors
    /// A layer that was pruned, a full disk, a registry that does not give a base layer.
    pub(super) async fn place<W: Amend + Send + 'static>(
        &self,
        id: LayerId,
        mut archive: ArchiveWriter<W>,
        packing: Packing,
        seen: bool,
        cx: &VertexContext,
    ) -> Result<(ArchiveWriter<W>, LayerBlob), ExecError> {
        let _turn = TURNS.turn(id).await;
        let info = self.held(id).await?;
        let store = self.store.clone();
        let blob = match self.existing(id, &info, packing, cx).await? {
            Some(blob) => blob,
            None if seen => self.as_blob(id, info, packing, cx).await?,
            None => {
                let packed = blocking(move || packed_into(archive, &store, id, &info, packing)).await;
                return packed.map_err(|e| not_packed(id, e));
            }
        };
        blocking(move || {
            let blobs = StoreBlobs::new(&store);
            archive.blob(&blob.descriptor, &blobs).map_err(|e| blobs.explain(e))?;
            Ok((archive, blob))
        })
        .await
    }
}

/// Packs a layer into an archive. Blocking.
fn packed_into<W: Amend + Send + 'static>(
    archive: ArchiveWriter<W>,
    store: &Store,
    id: LayerId,
    info: &LayerInfo,
    packing: Packing,
) -> Result<(ArchiveWriter<W>, LayerBlob), ExecError> {
    let fill = |out| {
        let (out, packed) = pack(store, id, info, packing.compression, Hashing::new(out)).map_err(Unmade)?;
        let (out, digest, size) = out.finish();
        let diff_id = packed.diff_id;
        if let Some(plain) = packed.plain {
            store.layers().add_form(&id, &diff_id, plain).map_err(|e| Unmade(from_store(e)))?;
        }
        let mut descriptor = Descriptor::new(packing.compression.media_type(true), digest, size);
        descriptor.annotations.extend(packed.annotations);
        let (created_ms, described) = (info.created_ms(), descriptor.clone());
        let made = LayerBlob { id, diff_id, descriptor: described, created_ms, elsewhere: false };
        Ok((out, descriptor, made))
    };
    archive.blob_as_made(fill).map_err(|Unmade(error)| error)
}

/// Why a layer was not packed.
struct Unmade(ExecError);

impl From<cache::oci::Error> for Unmade {
    fn from(error: cache::oci::Error) -> Self {
        Self(ExecError::failed(error))
    }
}
