//! Layers as an image refers to them: diff IDs, and blobs in the form that is wanted.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cache::layer::{TarOptions, write_tar};
use cache::oci::{Compression, Compressor, Decompressor, Descriptor, Reference, media_type};
use cache::store::{BlobPurpose, BlobRef, LayerInfo, Lease, Store, StoreError};
use futures_util::{StreamExt, TryStreamExt};
use sha2::{Digest as _, Sha256};
use solver::{Digest, ExecError, LayerId, VertexContext};

use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::diffids::{DiffIds, plain_tar};
use crate::daemon::sources::image::ImageSource;
use crate::daemon::turns::Turns;

/// How many layers are hashed or compressed at a time; each compression uses several threads.
const AT_ONCE: usize = 2;

/// A layer within an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerBlob {
    /// Which layer.
    pub id: LayerId,
    /// Digest of the plain tar.
    pub diff_id: Digest,
    /// The blob that a manifest names. One of an uncompressed layer may not exist yet: its bytes follow from the layer.
    pub descriptor: Descriptor,
    /// When the layer was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// The form that layers are wanted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are: existing blobs, or plain tars that nobody has written.
    AsIs,
    /// As blobs that exist.
    Blobs {
        /// New blobs are made this way.
        compression: Compression,
        /// Existing blobs of another kind are not taken.
        force: bool,
    },
}

impl Form {
    /// Compressed as by default; existing blobs are taken.
    pub(crate) fn compressed() -> Self {
        Self::Blobs { compression: Compression::default(), force: false }
    }
}

/// Makes blobs of layers.
#[derive(Debug, Clone)]
pub(crate) struct LayerBlobs {
    /// Where layers and blobs are.
    pub store: Store,
    /// Knows where base layers that were not pulled can be had.
    pub images: Arc<ImageSource>,
    /// May have hashed layers already.
    pub diff_ids: Arc<DiffIds>,
}

/// Layers whose blob is being made.
static TURNS: std::sync::LazyLock<Turns<LayerId>> = std::sync::LazyLock::new(Turns::default);

impl LayerBlobs {
    /// The layers of a chain in the wanted form, lowest first.
    ///
    /// # Errors
    /// A layer that was pruned, a full disk, a registry that does not give a base layer.
    pub(crate) async fn of_chain(
        &self,
        chain: &[LayerId],
        form: Form,
        lease: &Lease,
        cx: &VertexContext,
    ) -> Result<Vec<LayerBlob>, ExecError> {
        let one = |id: LayerId| async move {
            let _turn = TURNS.turn(id).await;
            self.of_layer(id, form, lease, cx).await
        };
        futures_util::stream::iter(chain.iter().copied().map(one)).buffered(AT_ONCE).try_collect().await
    }

    async fn of_layer(
        &self,
        id: LayerId,
        form: Form,
        lease: &Lease,
        cx: &VertexContext,
    ) -> Result<LayerBlob, ExecError> {
        match form {
            Form::AsIs => self.diff_ids.settled(&id).await,
            // Packing hashes on the way.
            Form::Blobs { .. } => self.diff_ids.forgo(&id),
        }
        let info = self.store.layers().hold(lease, &id).map_err(from_store)?;
        let info = info.ok_or_else(|| ExecError::Changed { path: id.to_string() })?;
        match form {
            Form::AsIs => self.as_is(id, info).await,
            Form::Blobs { compression, force } => self.as_blob(id, info, compression, force, lease, cx).await,
        }
    }

    async fn as_is(&self, id: LayerId, info: LayerInfo) -> Result<LayerBlob, ExecError> {
        if let (Some(diff_id), Some(blob)) =
            (info.diff_id, info.blobs.first().or(info.origin.as_ref().map(|o| &o.blob)))
        {
            return Ok(blob_of(id, diff_id, blob, &info));
        }
        let store = self.store.clone();
        let plain = blocking(move || plain_tar(&store, id, &AtomicBool::new(false))).await?;
        Ok(blob_of(id, plain.digest, &plain, &info))
    }

    async fn as_blob(
        &self,
        id: LayerId,
        info: LayerInfo,
        compression: Compression,
        force: bool,
        lease: &Lease,
        cx: &VertexContext,
    ) -> Result<LayerBlob, ExecError> {
        let wanted =
            |b: &&BlobRef| !force && !is_plain(&b.media_type) || same_kind(&b.media_type, compression);
        for blob in info.blobs.iter().filter(wanted) {
            let there = self.store.blobs().hold(lease, &blob.digest).map_err(from_store)?;
            if let (Some(_), Some(diff_id)) = (there, info.diff_id) {
                return Ok(blob_of(id, diff_id, blob, &info));
            }
        }
        if let (Some(origin), Some(diff_id)) = (&info.origin, info.diff_id)
            && !force
        {
            self.download(&origin.reference, &origin.blob, lease, cx).await?;
            self.store.layers().add_blob(&id, origin.blob.clone()).map_err(from_store)?;
            return Ok(blob_of(id, diff_id, &origin.blob, &info));
        }
        let (store, lease, known) = (self.store.clone(), lease.clone(), info.clone());
        let packed = blocking(move || compressed(&store, id, &known, compression, &lease)).await;
        let (diff_id, blob) = packed.map_err(|e| not_packed(id, e))?;
        Ok(blob_of(id, diff_id, &blob, &info))
    }

    /// Brings in the compressed blob of a base layer that nothing needed until now.
    async fn download(
        &self,
        reference: &str,
        blob: &BlobRef,
        lease: &Lease,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let reference = Reference::parse(reference).map_err(ExecError::failed)?;
        let descriptor = Descriptor::new(blob.media_type.clone(), blob.digest, blob.size);
        let client = self.images.client(cx);
        loop {
            let mut stream = client.fetch_blob(&reference, &descriptor).map_err(ExecError::failed)?;
            let mut writer = self.store.blobs().writer().map_err(from_store)?;
            let received = loop {
                match stream.next_chunk().await {
                    Ok(Some(chunk)) => writer.write_all(&chunk).map_err(ExecError::failed)?,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            match received {
                Err(error) if stream.is_misled() => {
                    tracing::warn!(%error, "a mirror sent wrong bytes; asking elsewhere");
                    continue;
                }
                other => other.map_err(ExecError::failed)?,
            }
            let (lease, digest) = (lease.clone(), blob.digest);
            blocking(move || writer.commit(&lease, Some(&digest), purpose())).await.map_err(from_store)?;
            return Ok(());
        }
    }
}

fn purpose() -> BlobPurpose {
    BlobPurpose { description: "layer".to_owned(), ..BlobPurpose::default() }
}

fn blob_of(id: LayerId, diff_id: Digest, blob: &BlobRef, info: &LayerInfo) -> LayerBlob {
    let descriptor = Descriptor::new(blob.media_type.clone(), blob.digest, blob.size);
    LayerBlob { id, diff_id, descriptor, created_ms: info.created_ms() }
}

fn is_plain(media: &str) -> bool {
    matches!(media, media_type::OCI_LAYER | media_type::DOCKER_LAYER)
}

fn same_kind(media: &str, compression: Compression) -> bool {
    media == compression.media_type(true) || media == compression.media_type(false)
}

/// Compresses a layer into a blob, hashing the plain tar on the way. Blocking.
fn compressed(
    store: &Store,
    id: LayerId,
    info: &LayerInfo,
    compression: Compression,
    lease: &Lease,
) -> Result<(Digest, BlobRef), ExecError> {
    let layers = store.layers();
    let threads = cache::cores();
    let writer = store.blobs().writer().map_err(from_store)?;
    let compressor = Compressor::new(writer, compression, threads).map_err(ExecError::failed)?;
    let mut hashing = Hashing { out: compressor, hash: Sha256::new() };
    match stored_tar(store, info)? {
        Some(mut tar) => drop(std::io::copy(&mut tar, &mut hashing).map_err(ExecError::failed)?),
        None => {
            let (entries, dir) =
                (layers.entries(&id).map_err(from_store)?, layers.dir(&id).map_err(from_store)?);
            hashing = write_tar(&entries, &dir, TarOptions::default(), hashing).map_err(ExecError::failed)?;
        }
    }
    let Hashing { out, hash } = hashing;
    let diff_id = Digest::from_bytes(hash.finalize().into());
    if let Some(known) = info.diff_id.filter(|known| *known != diff_id) {
        return Err(ExecError::failed(LostTar { layer: id, diff_id: known }));
    }
    let writer = out.finish().map_err(ExecError::failed)?;
    let size = writer.size();
    let digest = writer.commit(lease, None, purpose()).map_err(from_store)?;
    let blob = BlobRef { media_type: compression.media_type(true).to_owned(), digest, size };
    layers.add_form(&id, &diff_id, blob.clone()).map_err(from_store)?;
    Ok((diff_id, blob))
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

fn not_packed(layer: LayerId, error: ExecError) -> ExecError {
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

/// Hashes what is written through it.
struct Hashing<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(buf)?;
        self.hash.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
