//! Layers as an image refers to them: diff IDs, and blobs in the form that is wanted.

mod exact;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cache::Hashing;
use cache::layer::{TarOptions, write_tar};
use cache::oci::{Compression, Decompressor, Descriptor, Reference, media_type};
use cache::store::{BlobPurpose, BlobRef, BlobWriter, LayerInfo, Lease, Origin, Store, StoreError};
use futures_util::{StreamExt, TryStreamExt};
use solver::{Digest, ExecError, LayerId, VertexContext};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use super::packer::{Packed, Packer};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::diffids::{DiffIds, plain_tar};
use crate::daemon::remote_cache::ServiceStore;
use crate::daemon::sources::image::ImageSource;
use crate::daemon::turns::Turns;

/// How many layers are hashed or compressed at a time; each compression uses several threads.
const AT_ONCE: usize = 2;

/// How many layers come from caches at a time.
const FROM_CACHES_AT_ONCE: usize = 4;

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
    /// That the blob is this layer is what others say, who have it; nobody here has looked.
    pub elsewhere: bool,
}

/// The form that layers are wanted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are: existing blobs, or plain tars that nobody has written.
    AsIs,
    /// As blobs that exist.
    Blobs(Packing),
    /// As blobs, of which those that others have may exist there only.
    Anywhere(Packing),
}

/// How blobs are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Packing {
    /// New blobs are made this way.
    pub compression: Compression,
    /// Existing blobs of another kind are not taken.
    pub force: bool,
}

impl Packing {
    /// Whether a blob of that media type is what would be made. Of a gzip nobody knows whether it is eStargz.
    pub(crate) fn makes(self, media: &str) -> bool {
        let Self { compression, .. } = self;
        let types = [compression.media_type(true), compression.media_type(false)];
        !compression.is_indexed() && types.contains(&media)
    }
}

impl Form {
    /// Compressed as by default; existing blobs are taken.
    pub(crate) fn compressed() -> Self {
        Self::Blobs(Packing::default())
    }
}

/// How layers are written with times that are not their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rewrite<'a> {
    /// The base image's layers, lowest first; they stay as they are.
    pub base: &'a [Digest],
    /// How the others are stored.
    pub compression: Compression,
    /// Later times become this one, in seconds since 1970.
    pub seconds: i64,
}

/// The annotation that says to which time a layer was rewritten.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// Makes blobs of layers.
#[derive(Debug, Clone)]
pub(crate) struct LayerBlobs {
    /// Where layers and blobs are.
    pub store: Store,
    /// Knows where base layers that were not pulled can be had.
    pub images: Arc<ImageSource>,
    /// May have hashed layers already.
    pub diff_ids: Arc<DiffIds>,
    /// What is wanted.
    pub form: Form,
    /// Holds what is made.
    pub lease: Lease,
    /// Layers that are in an archive already, and need no blob.
    pub placed: HashMap<LayerId, LayerBlob>,
}

/// Layers whose blob is being made.
pub(super) static TURNS: std::sync::LazyLock<Turns<LayerId>> = std::sync::LazyLock::new(Turns::default);

impl LayerBlobs {
    /// The layers of a chain in the wanted form, lowest first.
    ///
    /// # Errors
    /// A layer that was pruned, a full disk, a registry that does not give a base layer.
    pub(crate) async fn of_chain(
        &self,
        chain: &[LayerId],
        cx: &VertexContext,
    ) -> Result<Vec<LayerBlob>, ExecError> {
        let layers = chain.iter().copied().map(|id: LayerId| self.one(id, cx));
        futures_util::stream::iter(layers).buffered(AT_ONCE).try_collect().await
    }

    /// One layer in the wanted form.
    ///
    /// # Errors
    /// As [`Self::of_chain`].
    pub(crate) async fn one(&self, id: LayerId, cx: &VertexContext) -> Result<LayerBlob, ExecError> {
        if let Some(placed) = self.placed.get(&id) {
            return Ok(placed.clone());
        }
        let _turn = TURNS.turn(id).await;
        let info = self.held(id).await?;
        match self.form {
            Form::AsIs => self.as_is(id, info).await,
            Form::Blobs(packing) | Form::Anywhere(packing) => self.as_blob(id, info, packing, cx).await,
        }
    }

    /// The layers of a chain as blobs, those above the base image's with other times.
    ///
    /// # Errors
    /// As [`Self::of_chain`].
    pub(crate) async fn rewritten(
        &self,
        chain: &[LayerId],
        rewrite: Rewrite<'_>,
        cx: &VertexContext,
    ) -> Result<Vec<LayerBlob>, ExecError> {
        let mut base = 0;
        for (id, diff_id) in chain.iter().zip(rewrite.base) {
            let info = self.store.layers().hold(&self.lease, id).map_err(from_store)?;
            if info.and_then(|info| info.diff_id) != Some(*diff_id) {
                break;
            }
            base += 1;
        }
        let (below, above) = chain.split_at(base);
        let mut layers = self.of_chain(below, cx).await?;
        for &id in above {
            let info = self.store.layers().hold(&self.lease, &id).map_err(from_store)?;
            let info = info.ok_or_else(|| ExecError::Changed { path: id.to_string() })?;
            let (store, lease) = (self.store.clone(), self.lease.clone());
            let (compression, seconds) = (rewrite.compression, rewrite.seconds);
            let packed = blocking(move || rewritten_blob(&store, id, seconds, compression, &lease));
            let (packed, blob) = packed.await.map_err(|e| not_packed(id, e))?;
            let mut layer = packed_as(id, packed, &blob, &info);
            layer.descriptor.annotations.insert(REWRITTEN.to_owned(), seconds.to_string());
            layers.push(layer);
        }
        Ok(layers)
    }

    /// Holds a layer, once nobody else hashes it.
    pub(super) async fn held(&self, id: LayerId) -> Result<LayerInfo, ExecError> {
        match self.form {
            Form::AsIs => self.diff_ids.settled(&id).await,
            // Packing hashes on the way.
            Form::Blobs(_) | Form::Anywhere(_) => self.diff_ids.forgo(&id),
        }
        let info = self.store.layers().hold(&self.lease, &id).map_err(from_store)?;
        info.ok_or_else(|| ExecError::Changed { path: id.to_string() })
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

    pub(super) async fn as_blob(
        &self,
        id: LayerId,
        mut info: LayerInfo,
        packing: Packing,
        cx: &VertexContext,
    ) -> Result<LayerBlob, ExecError> {
        if let Some(blob) = self.existing(id, &info, packing, cx).await? {
            return Ok(blob);
        }
        if let (false, true, Some(source)) = (info.present, info.blobs.is_empty(), self.source(id, &info, cx))
        {
            // It was never unpacked here: what it is made of comes in before it is packed another way.
            info.blobs.push(self.bring_in(id, source, cx).await?);
        }
        let (store, lease, known) = (self.store.clone(), self.lease.clone(), info.clone());
        let packed = blocking(move || packed_blob(&store, id, &known, packing.compression, &lease)).await;
        let (packed, blob) = packed.map_err(|e| not_packed(id, e))?;
        Ok(packed_as(id, packed, &blob, &info))
    }

    /// A blob that is in the store or can be downloaded.
    pub(super) async fn existing(
        &self,
        id: LayerId,
        info: &LayerInfo,
        packing: Packing,
        cx: &VertexContext,
    ) -> Result<Option<LayerBlob>, ExecError> {
        let Packing { force, .. } = packing;
        let wanted = |b: &&BlobRef| !force && !is_plain(&b.media_type) || packing.makes(&b.media_type);
        for blob in info.blobs.iter().filter(wanted) {
            let there = self.store.blobs().hold(&self.lease, &blob.digest).map_err(from_store)?;
            if let (Some(_), Some(diff_id)) = (there, info.diff_id) {
                return Ok(Some(blob_of(id, diff_id, blob, info)));
            }
        }
        let (Some(source), Some(diff_id), false) = (self.source(id, info, cx), info.diff_id, force) else {
            return Ok(None);
        };
        let elsewhere = matches!(self.form, Form::Anywhere(_)) && !matches!(source, Source::Known(_));
        let blob = if elsewhere { source.blob().clone() } else { self.bring_in(id, source, cx).await? };
        Ok(Some(LayerBlob { elsewhere, ..blob_of(id, diff_id, &blob, info) }))
    }

    /// Brings in the blobs of those layers that only a cache of this build has: later builds could not ask for them.
    ///
    /// # Errors
    /// A service that does not give one.
    pub(crate) async fn bring_from_caches(
        &self,
        chain: &[LayerId],
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let one = |id: LayerId| async move {
            let _turn = TURNS.turn(id).await;
            let Some((store, blob)) = self.images.in_cache(&id, cx) else { return Ok(()) };
            let info = self.store.layers().hold(&self.lease, &id).map_err(from_store)?;
            if info.is_some_and(|info| info.present || info.origin.is_some()) {
                return Ok(());
            }
            let blob = BlobRef { media_type: blob.media_type, digest: blob.digest, size: blob.size };
            match self.store.blobs().hold(&self.lease, &blob.digest).map_err(from_store)? {
                Some(_) => self.store.layers().add_blob(&id, blob).map_err(from_store),
                None => self.bring_in(id, Source::Cache(store, blob), cx).await.map(drop),
            }
        };
        let all = futures_util::stream::iter(chain.iter().copied().map(one));
        all.buffer_unordered(FROM_CACHES_AT_ONCE).try_collect().await
    }

    /// Whether a layer's blob exists here. That others keep something by its digest is no reason to hand it on as that layer.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn is_here(&self, layer: &LayerBlob) -> Result<bool, ExecError> {
        let digest = &layer.descriptor.digest;
        if layer.elsewhere {
            let info = self.store.layers().hold(&self.lease, &layer.id).map_err(from_store)?;
            if !info.is_some_and(|info| info.blobs.iter().any(|blob| blob.digest == *digest)) {
                return Ok(false);
            }
        }
        Ok(self.store.blobs().hold(&self.lease, digest).map_err(from_store)?.is_some())
    }

    /// The repository that a layer's blob came from or can be had from.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn origin(
        &self,
        layer: &LayerBlob,
        cx: &VertexContext,
    ) -> Result<Option<Reference>, ExecError> {
        let known = || self.store.layers().get(&layer.id).map_err(from_store);
        let origin = match self.images.looked_up(&layer.id, cx) {
            Some(origin) => Some(origin),
            None => known()?.and_then(|info| info.origin),
        };
        let same = origin.filter(|origin| origin.blob.digest == layer.descriptor.digest);
        Ok(same.and_then(|origin| Reference::parse(&origin.reference).ok()))
    }

    /// Brings in the blob of a layer that others have.
    ///
    /// # Errors
    /// A registry or a service that does not give it.
    pub(crate) async fn bring_here(&self, layer: &LayerBlob, cx: &VertexContext) -> Result<(), ExecError> {
        let _turn = TURNS.turn(layer.id).await;
        if self.is_here(layer)? {
            return Ok(());
        }
        let info = self.held(layer.id).await?;
        match self.source(layer.id, &info, cx) {
            Some(source) if source.blob().digest == layer.descriptor.digest => {
                self.bring_in(layer.id, source, cx).await.map(drop)
            }
            _ => Err(ExecError::Changed { path: layer.id.to_string() }),
        }
    }

    /// Where a layer's blob can be had. What an image of this build says goes before what others said of the same layer.
    fn source(&self, id: LayerId, info: &LayerInfo, cx: &VertexContext) -> Option<Source> {
        if let Some(origin) = self.images.looked_up(&id, cx) {
            return Some(Source::Registry(origin));
        }
        match &info.origin {
            Some(origin) => Some(Source::Known(origin.clone())),
            None => self.images.in_cache(&id, cx).map(|(store, blob)| {
                let blob = BlobRef { media_type: blob.media_type, digest: blob.digest, size: blob.size };
                Source::Cache(store, blob)
            }),
        }
    }

    /// Brings in the compressed blob of a layer that nothing needed until now.
    async fn bring_in(&self, id: LayerId, source: Source, cx: &VertexContext) -> Result<BlobRef, ExecError> {
        let blob = source.blob().clone();
        let descriptor = Descriptor::new(blob.media_type.clone(), blob.digest, blob.size);
        match source {
            Source::Registry(origin) | Source::Known(origin) => {
                self.download(&origin.reference, &descriptor, cx).await?
            }
            Source::Cache(store, _) => {
                let from = store.blob(&descriptor).await.map_err(ExecError::failed)?;
                self.take(from, &descriptor, cx).await?;
            }
        }
        self.prove(id, blob.digest).await?;
        self.store.layers().add_blob(&id, blob.clone()).map_err(from_store)?;
        Ok(blob)
    }

    /// Makes sure that a blob is the layer that somebody said it is: from here on everybody is given it for that.
    async fn prove(&self, layer: LayerId, blob: Digest) -> Result<(), ExecError> {
        let Some(expected) = self.held(layer).await?.diff_id else { return Ok(()) };
        let store = self.store.clone();
        let work = blocking(move || {
            let packed = store.blobs().open(&blob).map_err(from_store)?;
            let mut plain = Decompressor::new(packed).map_err(ExecError::failed)?;
            let mut hashed = Hashing::new(std::io::sink());
            std::io::copy(&mut plain, &mut hashed).map_err(ExecError::failed)?;
            let (_, actual, _) = hashed.finish();
            if actual == expected {
                Ok(())
            } else {
                Err(ExecError::failed(OtherLayer { blob, expected, actual }))
            }
        });
        work.await
    }

    /// Writes a blob as it comes.
    async fn take(
        &self,
        from: impl AsyncRead + Send + Unpin + 'static,
        blob: &Descriptor,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let (store, lease, digest) = (self.store.clone(), self.lease.clone(), blob.digest);
        let mut from = SyncIoBridge::new(from);
        let work = blocking(move || {
            let mut writer = store.blobs().writer().map_err(from_store)?;
            std::io::copy(&mut from, &mut writer).map_err(ExecError::failed)?;
            writer.commit(&lease, Some(&digest), layer_purpose()).map_err(from_store)
        });
        tokio::select! {
            taken = work => taken.map(drop),
            () = cx.cancel.cancelled() => Err(ExecError::Canceled),
        }
    }

    async fn download(
        &self,
        reference: &str,
        blob: &Descriptor,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let reference = Reference::parse(reference).map_err(ExecError::failed)?;
        let client = self.images.client(cx);
        loop {
            let mut stream = client.fetch_blob(&reference, blob).map_err(ExecError::failed)?;
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
            let (lease, digest) = (self.lease.clone(), blob.digest);
            blocking(move || writer.commit(&lease, Some(&digest), layer_purpose()))
                .await
                .map_err(from_store)?;
            return Ok(());
        }
    }
}

/// Where others have a layer's blob.
enum Source {
    /// At a registry, by an image that this build looked up.
    Registry(Origin),
    /// At a registry, by what somebody looked up some day.
    Known(Origin),
    /// At a service, for this build.
    Cache(Arc<ServiceStore>, BlobRef),
}

impl Source {
    fn blob(&self) -> &BlobRef {
        match self {
            Self::Registry(origin) | Self::Known(origin) => &origin.blob,
            Self::Cache(_, blob) => blob,
        }
    }
}

/// What the blob of a layer is for.
pub(crate) fn layer_purpose() -> BlobPurpose {
    BlobPurpose { description: "layer".to_owned(), ..BlobPurpose::default() }
}

fn blob_of(id: LayerId, diff_id: Digest, blob: &BlobRef, info: &LayerInfo) -> LayerBlob {
    let descriptor = Descriptor::new(blob.media_type.clone(), blob.digest, blob.size);
    LayerBlob { id, diff_id, descriptor, created_ms: info.created_ms(), elsewhere: false }
}

/// As [`blob_of`], for a blob that was made now.
fn packed_as(id: LayerId, packed: Packed, blob: &BlobRef, info: &LayerInfo) -> LayerBlob {
    let mut layer = blob_of(id, packed.diff_id, blob, info);
    layer.descriptor.annotations.extend(packed.annotations);
    layer
}

fn is_plain(media: &str) -> bool {
    matches!(media, media_type::OCI_LAYER | media_type::DOCKER_LAYER)
}

/// Compresses a layer's files into a blob, later times being `seconds` after 1970. Blocking.
fn rewritten_blob(
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
fn packed_blob(
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
pub(super) fn pack<W: Write + Send + 'static>(
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

pub(super) fn not_packed(layer: LayerId, error: ExecError) -> ExecError {
    match error {
        ExecError::Failed(_) => ExecError::failed(NotPacked { layer, source: error }),
        other => other,
    }
}

/// A registry or a cache said of a blob that it is a layer that it is not.
#[derive(Debug, thiserror::Error)]
#[error("blob `{blob}` was said to be the layer with the diff ID {expected} and has {actual}")]
struct OtherLayer {
    blob: Digest,
    expected: Digest,
    actual: Digest,
}

/// The blob of an image's layer is gone, and what is unpacked of it gives other bytes.
#[derive(Debug, thiserror::Error)]
#[error("layer `{layer}` cannot be packed as `{diff_id}` again: its blob is gone")]
struct LostTar {
    layer: LayerId,
    diff_id: Digest,
}
