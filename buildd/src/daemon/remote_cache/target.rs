//! Where caches go: registries, and directories of the client.

use std::collections::BTreeMap;
use std::sync::Arc;

use cache::oci::{Descriptor, Reference};
use cache::remote::{CacheManifest, Chains, MEDIA_TYPE};
use futures_util::{StreamExt, TryStreamExt};
use solver::{ExecError, VertexContext};

use super::request::{CacheExport, CachePlace, CacheRequestError};
use crate::daemon::chains::from_store;
use crate::daemon::export::{StoredBlob, with_types};
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
        CachePlace::Unknown(_) => Some("exporting cache to an unknown service"),
    }
}

/// Who takes the blobs.
enum Taker {
    Registry(cache::registry::Client, Reference),
    Client(Session, String),
}

/// Writes layers, config and manifest, in this order: a manifest names only what is there.
pub(super) async fn send(
    parts: &Parts,
    chains: &Chains,
    export: &CacheExport,
    step: &Step,
    cx: &VertexContext,
) -> Result<BTreeMap<String, String>, ExecError> {
    let (config, layers) = chains.marshal();
    if config.layers.is_empty() {
        step.part("skipping cache export for empty result", async { Ok::<_, ExecError>(()) }).await?;
        return Ok(BTreeMap::new());
    }
    let taker = taker(parts, &export.place, cx).await?;
    let layers: Vec<Descriptor> = layers.iter().map(|layer| with_types(layer, export.oci)).collect();
    let one = |layer: Descriptor| {
        let taker = &taker;
        async move {
            let name = format!("writing layer {}", layer.digest);
            step.part(&name, taker.put(parts, &layer)).await
        }
    };
    futures_util::stream::iter(layers.clone().into_iter().map(one))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
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
        CachePlace::Inline => Err(ExecError::failed(NoSession)),
        CachePlace::Unknown(service) => Err(ExecError::failed(CacheRequestError::Kind(service.clone()))),
    }
}

impl Taker {
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
        }
    }

    async fn finish(&self, parts: &Parts, manifest: &Descriptor, bytes: &[u8]) -> Result<(), ExecError> {
        match self {
            Self::Registry(client, reference) => {
                let pushed = client.push_manifest(reference, &manifest.media_type, bytes).await;
                pushed.map(drop).map_err(ExecError::failed)
            }
            Self::Client(..) => self.put(parts, manifest).await,
        }
    }
}
