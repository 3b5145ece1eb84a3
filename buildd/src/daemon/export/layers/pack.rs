//! Making blobs of layers' files.

use std::io::{Read, Write};

use cache::layer::{TarOptions, write_tar};
use cache::oci::{Compression, Decompressor, media_type};
use cache::store::{BlobPurpose, BlobRef, BlobWriter, LayerInfo, Lease, Store, StoreError};
use solver::{Digest, ExecError, LayerId};

use super::super::packer::{Packed, Packer};
use crate::daemon::chains::from_store;

/// What the blob of a layer is for.
pub(crate) fn layer_purpose() -> BlobPurpose {
    BlobPurpose { description: "layer".to_owned(), ..BlobPurpose::default() }
}

pub(super) fn is_plain(media: &str) -> bool {
    matches!(media, media_type::OCI_LAYER | media_type::DOCKER_LAYER)
}

/// Compresses a layer's files into a blob, later times being `seconds` after 1970. Blocking.
pub(super) fn rewritten_blob(
    store: &Store,
    id: LayerId,
    seconds: i64,
    compression: Compression,
    lease: &Lease,
) -> Result<(Packed, BlobRef), ExecError> {
    let writer = store.blobs().writer().map_err(from_store)?;
    let packer = Packer::new(writer, compression).map_err(ExecError::failed)?;
    let options = TarOptions { max_mtime: Some(seconds) };
    let (writer, packed) = tar_of_files(store, id, options, packer)?.finish().map_err(ExecError::failed)?;
    Ok((packed, kept(writer, compression, lease)?))
}

/// Writes a layer's files as a tar. Blocking.
fn tar_of_files<W: Write>(store: &Store, id: LayerId, options: TarOptions, out: W) -> Result<W, ExecError> {
    let layers = store.layers();
    let (entries, dirs) = (layers.entries(&id).map_err(from_store)?, layers.dirs(&id).map_err(from_store)?);
    write_tar(&entries, &dirs, options, out).map_err(ExecError::failed)
}

/// Keeps a blob that is written. Blocking.
fn kept(writer: BlobWriter, compression: Compression, lease: &Lease) -> Result<BlobRef, ExecError> {
    let size = writer.size();
    let digest = writer.commit(lease, None, layer_purpose()).map_err(from_store)?;
    Ok(BlobRef { media_type: compression.media_type(true).to_owned(), digest, size })
}

/// Compresses a layer into a blob. Blocking.
pub(super) fn packed_blob(
    store: &Store,
    id: LayerId,
    info: &LayerInfo,
    compression: Compression,
    lease: &Lease,
) -> Result<(Packed, BlobRef), ExecError> {
    let writer = store.blobs().writer().map_err(from_store)?;
    let (writer, packed) = pack(store, id, info, compression, writer)?;
    let blob = kept(writer, compression, lease)?;
    if packed.plain.is_some() {
        store.layers().add_form(&id, &packed.diff_id, blob.clone()).map_err(from_store)?;
    }
    Ok((packed, blob))
}

/// A blob of a layer for others: one that is here, or one made now, which the layer does not keep, so that images of it are stored as
/// they would have been. Also the layer's diff ID. Blocking.
///
/// # Errors
/// A layer that was pruned; a full disk.
pub(crate) fn pack_apart(
    store: &Store,
    id: LayerId,
    info: &LayerInfo,
    compression: Compression,
    lease: &Lease,
) -> Result<(Digest, BlobRef), ExecError> {
    for blob in info.blobs.iter().filter(|blob| !is_plain(&blob.media_type)) {
        let there = store.blobs().hold(lease, &blob.digest).map_err(from_store)?;
        if let (Some(_), Some(diff_id)) = (there, info.diff_id) {
            return Ok((diff_id, blob.clone()));
        }
    }
    let writer = store.blobs().writer().map_err(from_store)?;
    let (writer, packed) = pack(store, id, info, compression, writer)?;
    Ok((packed.diff_id, kept(writer, compression, lease)?))
}

/// Compresses a layer into `out`, and tells what was made. Blocking.
pub(in super::super) fn pack<W: Write + Send + 'static>(
    store: &Store,
    id: LayerId,
    info: &LayerInfo,
    compression: Compression,
    out: W,
) -> Result<(W, Packed), ExecError> {
    let mut packer = Packer::new(out, compression).map_err(ExecError::failed)?;
    match stored_tar(store, info)? {
        Some(mut tar) => drop(std::io::copy(&mut tar, &mut packer).map_err(ExecError::failed)?),
        None => packer = tar_of_files(store, id, TarOptions::default(), packer)?,
    }
    let (out, packed) = packer.finish().map_err(ExecError::failed)?;
    let other = |known: &Digest| packed.plain.as_ref().is_some_and(|plain| plain.digest != *known);
    if let Some(known) = info.diff_id.filter(other) {
        return Err(ExecError::failed(LostTar { layer: id, diff_id: known }));
    }
    Ok((out, packed))
}

/// The tar of a layer that came with an image: its snapshot need not give the same bytes.
fn stored_tar(store: &Store, info: &LayerInfo) -> Result<Option<impl Read>, ExecError> {
    for blob in &info.blobs {
        let there = store.blobs().check(&blob.digest);
        if let Err(damaged @ StoreError::BlobDamaged { .. }) = &there {
            tracing::warn!("{damaged}; doing without it");
        }
        if there.is_ok() {
            let file = store.blobs().open(&blob.digest).map_err(from_store)?;
            return Decompressor::new(file).map(Some).map_err(ExecError::failed);
        }
    }
    Ok(None)
}

/// A layer could not be made a blob.
#[derive(Debug, thiserror::Error)]
#[error("cannot pack layer `{layer}`")]
struct NotPacked {
    layer: LayerId,
    #[source]
    source: ExecError,
}

pub(in super::super) fn not_packed(layer: LayerId, error: ExecError) -> ExecError {
    match error {
        ExecError::Failed(_) => ExecError::failed(NotPacked { layer, source: error }),
        other => other,
    }
}

/// The blob of an image's layer is gone, and what is unpacked of it gives other bytes.
#[derive(Debug, thiserror::Error)]
#[error("layer `{layer}` cannot be packed as `{diff_id}` again: its blob is gone")]
struct LostTar {
    layer: LayerId,
    diff_id: Digest,
}
