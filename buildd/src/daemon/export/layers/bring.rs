//! Blobs of layers that others have.

use std::io::Write as _;
use std::sync::Arc;

use cache::Hashing;
use cache::oci::{Decompressor, Descriptor, Reference};
use cache::store::{BlobRef, LayerInfo, Origin};
use futures_util::{StreamExt, TryStreamExt};
use solver::{Digest, ExecError, LayerId, VertexContext};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use super::pack::layer_purpose;
use super::{LayerBlob, LayerBlobs, TURNS};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::remote_cache::ServiceStore;

/// How many layers come from caches at a time.
const FROM_CACHES_AT_ONCE: usize = 4;

/// Where others have a layer's blob.
pub(super) enum Source {
    /// At a registry, by an image that this build looked up.
    Registry(Origin),
    /// At a registry, by what somebody looked up some day.
    Known(Origin),
    /// At a service, for this build.
    Cache(Arc<ServiceStore>, BlobRef),
}

impl Source {
    pub(super) fn blob(&self) -> &BlobRef {
        match self {
            Self::Registry(origin) | Self::Known(origin) => &origin.blob,
            Self::Cache(_, blob) => blob,
        }
    }
}

impl LayerBlobs {
    /// Brings in the blobs of those layers that only a cache of this build has: later builds could not ask for them. If the result is to
    /// be `complete`, also of those that registries have.
    ///
    /// # Errors
    /// A service that does not give one.
    pub(crate) async fn bring_from_caches(
        &self,
        chain: &[LayerId],
        complete: bool,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let one = |id: LayerId| async move {
            let _turn = TURNS.turn(id).await;
            let info = self.store.layers().hold(&self.lease, &id).map_err(from_store)?;
            if let Some(info) = info.as_ref().filter(|info| info.present || info.origin.is_some()) {
                return if complete && !info.present { self.whole(id, info, cx).await } else { Ok(()) };
            }
            let Some((store, blob)) = self.images.in_cache(&id, cx) else { return Ok(()) };
            let blob = BlobRef { media_type: blob.media_type, digest: blob.digest, size: blob.size };
            match self.store.blobs().hold(&self.lease, &blob.digest).map_err(from_store)? {
                Some(_) => self.store.layers().add_blob(&id, blob).map_err(from_store),
                None => self.bring_in(id, Source::Cache(store, blob), cx).await.map(drop),
            }
        };
        let all = futures_util::stream::iter(chain.iter().copied().map(one));
        all.buffer_unordered(FROM_CACHES_AT_ONCE).try_collect().await
    }

    /// Sees to it that a layer can be unpacked without anybody else. Where its registry is away it stays as it is known.
    async fn whole(&self, id: LayerId, info: &LayerInfo, cx: &VertexContext) -> Result<(), ExecError> {
        for blob in &info.blobs {
            if self.store.blobs().hold(&self.lease, &blob.digest).map_err(from_store)?.is_some() {
                return Ok(());
            }
        }
        match self.source(id, info, cx) {
            Some(source) => match self.bring_in(id, source, cx).await {
                Err(error) if !matches!(error, ExecError::Canceled) => {
                    tracing::warn!(build = cx.build, "a layer of the image stays at its registry: {error}");
                    Ok(())
                }
                brought => brought.map(drop),
            },
            None => Ok(()),
        }
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
    pub(super) fn source(&self, id: LayerId, info: &LayerInfo, cx: &VertexContext) -> Option<Source> {
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
    pub(super) async fn bring_in(
        &self,
        id: LayerId,
        source: Source,
        cx: &VertexContext,
    ) -> Result<BlobRef, ExecError> {
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

/// A registry or a cache said of a blob that it is a layer that it is not.
#[derive(Debug, thiserror::Error)]
#[error("blob `{blob}` was said to be the layer with the diff ID {expected} and has {actual}")]
struct OtherLayer {
    blob: Digest,
    expected: Digest,
    actual: Digest,
}
