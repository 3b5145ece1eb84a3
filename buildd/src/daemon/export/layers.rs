//! Layers as an image refers to them: diff IDs, and blobs in the form that is wanted.

mod bring;
mod exact;
mod pack;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cache::oci::{Compression, Descriptor, Reference};
use cache::store::{BlobRef, LayerInfo, Lease, Store};
use futures_util::{StreamExt, TryStreamExt};
use solver::{Digest, ExecError, LayerId, VertexContext};

use self::bring::Source;
use self::pack::{is_plain, packed_blob, rewritten_blob};
pub(crate) use self::pack::{layer_purpose, pack_apart};
pub(super) use self::pack::{not_packed, pack};
use super::packer::Packed;
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
        // Of two blobs of one layer, the one of the image that this build stands on.
        let own = self.images.looked_up(&id, cx).map(|origin| origin.blob.digest);
        let mut blobs: Vec<&BlobRef> = info.blobs.iter().filter(wanted).collect();
        blobs.sort_by_key(|blob| Some(blob.digest) != own);
        for blob in blobs {
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
