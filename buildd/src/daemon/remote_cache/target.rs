//! Where caches go: registries, services, and directories of the client.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cache::oci::{Descriptor, Reference};
use cache::remote::{CacheManifest, Chains, MEDIA_TYPE};
use futures_util::{StreamExt, TryStreamExt};
use solver::{Digest, ExecError, VertexContext};

use super::request::{CacheExport, CachePlace};
use super::service::ServiceStore;
use crate::daemon::chains::from_store;
use crate::daemon::export::{LayerBlob, LayerBlobs, StoredBlob, with_types};
use crate::daemon::parts::Parts;
use crate::daemon::progress::Step;
use crate::session::Session;

/// How many layers are written at a time.
const AT_ONCE: usize = 4;

/// A cache goes to a client that is gone.
#[derive(Debug, thiserror::Error)]
#[error("local cache exporter/importer requires session")]
struct NoSession;

/// What the step of a cache's export is called, in BuildKit's words; `None` for what is part of another export.
pub(super) fn step_name(place: &CachePlace) -> Option<&'static str> {
    match place {
        CachePlace::Inline => None,
        CachePlace::Registry(_) => Some("exporting cache to registry"),
        CachePlace::Local(_) => Some("exporting cache to client directory"),
        CachePlace::Service(service) => Some(service.export_name()),
    }
}

/// Who takes the blobs.
enum Taker {
    Registry(cache::registry::Client, Reference),
    Client(Session, String),
    Service(Box<ServiceStore>),
}

/// What goes into a cache.
pub(super) struct Prepared {
    /// The keys, and what they gave.
    pub(super) chains: Chains,
    /// By the digest of their blobs: the layers.
    pub(super) layers: HashMap<Digest, LayerBlob>,
    /// Brings in those that are not here.
    pub(super) blobs: LayerBlobs,
}

/// Writes layers, config and manifest, in this order: a manifest names only what is there.
pub(super) async fn send(
    parts: &Parts,
    prepared: &Prepared,
    export: &CacheExport,
    step: &Step,
    cx: &VertexContext,
) -> Result<BTreeMap<String, String>, ExecError> {
    let (mut config, layers) = prepared.chains.marshal();
    if config.layers.is_empty() {
        step.part("skipping cache export for empty result", async { Ok::<_, ExecError>(()) }).await?;
        return Ok(BTreeMap::new());
    }
    let taker = taker(parts, &export.place, cx).await?;
    let layers: Vec<Descriptor> = layers.iter().map(|layer| with_types(layer, export.oci)).collect();
    let one = |layer: Descriptor| {
        let taker = &taker;
        async move {
            let is_here = prepared.is_here(&layer)?;
            if taker.has(&layer, is_here).await? {
                return Ok(());
            }
            let write = async {
                prepared.bring_here(&layer, cx).await?;
                taker.put(parts, &layer).await
            };
            step.part(&format!("writing layer {}", layer.digest), write).await
        }
    };
    let at_once = match &export.place {
        CachePlace::Service(service) => service.parallel(),
        _ => AT_ONCE,
    };
    futures_util::stream::iter(layers.clone().into_iter().map(one))
        .buffer_unordered(at_once)
        .try_collect::<Vec<()>>()
        .await?;
    if let Taker::Service(store) = &taker {
        config.describe(&layers).map_err(ExecError::failed)?;
        store.finish(&config).await.map_err(ExecError::failed)?;
        return Ok(BTreeMap::new());
    }
    let lease = parts.leases.of(&cx.build);
    let json = serde_json::to_vec(&config).map_err(ExecError::failed)?;
    let config = parts.exporter.keep(&lease, MEDIA_TYPE, &json)?;
    step.part(&format!("writing config {}", config.digest), taker.put(parts, &config)).await?;
    let (bytes, kind) = CacheManifest::document(config, layers, export.oci, export.image);
    let manifest = parts.exporter.keep(&lease, kind, &bytes)?;
    let what = if export.image { "cache image manifest" } else { "cache manifest" };
    step.part(&format!("writing {what} {}", manifest.digest), taker.finish(parts, &manifest, &bytes)).await?;
    let told = serde_json::to_string(&manifest).map_err(ExecError::failed)?;
    Ok(BTreeMap::from([("cache.manifest".to_owned(), told)]))
}

async fn taker(parts: &Parts, place: &CachePlace, cx: &VertexContext) -> Result<Taker, ExecError> {
    match place {
        CachePlace::Registry(reference) => Ok(Taker::Registry(parts.images.client(cx), reference.clone())),
        CachePlace::Local(store) => {
            let session = parts.sessions.first(&cx.sessions.ids()).await;
            let session = session.ok_or_else(|| ExecError::failed(NoSession))?;
            Ok(Taker::Client(session, store.clone()))
        }
        CachePlace::Service(service) => {
            let store = service.open().map_err(ExecError::failed)?;
            store.prepare().await.map_err(ExecError::failed)?;
            Ok(Taker::Service(Box::new(store)))
        }
        CachePlace::Inline => Err(ExecError::failed(NoSession)),
    }
}

impl Prepared {
    fn is_here(&self, blob: &Descriptor) -> Result<bool, ExecError> {
        self.layers.get(&blob.digest).map_or(Ok(true), |layer| self.blobs.is_here(layer))
    }

    async fn bring_here(&self, blob: &Descriptor, cx: &VertexContext) -> Result<(), ExecError> {
        match self.layers.get(&blob.digest) {
            Some(layer) => self.blobs.bring_here(layer, cx).await,
            None => Ok(()),
        }
    }
}

impl Taker {
    /// Whether a layer need not be written. A registry is asked while writing, so before only what would have to come from elsewhere.
    async fn has(&self, layer: &Descriptor, is_here: bool) -> Result<bool, ExecError> {
        match self {
            Self::Service(store) => store.has(layer).await.map_err(ExecError::failed),
            Self::Registry(client, reference) if !is_here => {
                client.blob_exists(reference, &layer.digest).await.map_err(ExecError::failed)
            }
            Self::Registry(..) | Self::Client(..) => Ok(false),
        }
    }

    async fn put(&self, parts: &Parts, blob: &Descriptor) -> Result<(), ExecError> {
        let store = parts.chains.store.clone();
        match self {
            Self::Registry(client, reference) => {
                let source = Arc::new(StoredBlob { store, digest: blob.digest });
                let pushed = client.push_blob(reference, blob, None, source).await;
                pushed.map(drop).map_err(ExecError::failed)
            }
            Self::Client(session, name) => {
                let file = store.blobs().open(&blob.digest).map_err(from_store)?;
                let file = tokio::fs::File::from_std(file);
                let written = session.write_blob(name, &blob.digest, blob.size, file).await;
                written.map_err(ExecError::failed)
            }
            Self::Service(service) => {
                let file = store.blobs().open(&blob.digest).map_err(from_store)?;
                service.put(blob, tokio::fs::File::from_std(file)).await.map_err(ExecError::failed)
            }
        }
    }

    async fn finish(&self, parts: &Parts, manifest: &Descriptor, bytes: &[u8]) -> Result<(), ExecError> {
        match self {
            Self::Registry(client, reference) => {
                let pushed = client.push_manifest(reference, &manifest.media_type, bytes).await;
                pushed.map(drop).map_err(ExecError::failed)
            }
            Self::Client(..) | Self::Service(_) => self.put(parts, manifest).await,
        }
    }
}
