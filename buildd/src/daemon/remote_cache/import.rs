//! A cache that a build looks into: found, read, and its results taken as images.

use std::collections::BTreeMap;
use std::sync::Arc;

use cache::oci::{CONFIG_LIMIT, Descriptor, Document, MANIFEST_LIMIT, Manifest, Reference, ResolvedImage};
use cache::remote::{CREATED, CacheConfig, CacheManifest, CacheResult, Chains, ConfigError, UNCOMPRESSED};
use solver::{Digest, ExecError, Output, VertexContext};
use tokio::sync::OnceCell;

use super::request::CacheImport;
use super::service::{CacheService, ServiceError, ServiceStore};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::Chains as Layers;
use crate::daemon::parts::Parts;
use crate::daemon::progress::Teller;
use crate::daemon::sources::image::LayoutStore;

/// How large a cache's config may be, in bytes (`readBlob` in BuildKit's `cache/remotecache/import.go`): some thousand records.
const CACHE_CONFIG_LIMIT: u64 = 1 << 20;
/// How many images of an index are asked for a cache.
const MAX_IMAGES: usize = 64;

/// A cache, read when it is first looked into.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) wanted: CacheImport,
    loaded: OnceCell<Vec<Chains>>,
    /// The service, once it is talked to.
    service: OnceCell<Arc<ServiceStore>>,
    /// Why it could not be read.
    failed: std::sync::OnceLock<String>,
}

/// Where a cache's blobs are.
#[derive(Debug, Clone)]
pub(in crate::daemon) enum CacheHome {
    /// At a registry.
    Registry(Reference),
    /// In a content store of the client.
    Store(LayoutStore),
    /// At a service; what it is called, and how it is talked to.
    Service(String, Arc<ServiceStore>),
}

/// A cache could not be read.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error("{0}")]
    Unusable(String),
    #[error(transparent)]
    Registry(#[from] cache::registry::Error),
    #[error(transparent)]
    Document(#[from] cache::oci::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Store(ExecError),
}

impl Import {
    pub(super) fn new(wanted: CacheImport) -> Self {
        let failed = std::sync::OnceLock::new();
        Self { wanted, loaded: OnceCell::new(), service: OnceCell::new(), failed }
    }

    /// The graphs that were read; none of a cache that cannot be had.
    pub(super) fn chains(&self) -> &[Chains] {
        self.loaded.get().map_or(&[], Vec::as_slice)
    }

    /// Reads the cache, once. That it cannot be read shows, and is no failure of the build.
    pub(super) async fn load(&self, parts: &Parts, teller: &Teller, cx: &VertexContext) {
        let load = || async {
            let step = teller.step(&format!("importing cache manifest from {}", self.name()));
            let read = async {
                tokio::select! {
                    r = self.read(parts, cx) => r,
                    () = cx.cancel.cancelled() => Err(ImportError::Store(ExecError::Canceled)),
                }
            };
            let read = read.await;
            if matches!(read, Err(ImportError::Store(ExecError::Canceled))) {
                // Another graph of the build may still want it.
                return Err(());
            }
            match step.end(read.map_err(|e| crate::causes::causes(&e))) {
                Ok(chains) => Ok(chains),
                Err(error) => {
                    tracing::warn!(build = cx.build, "cannot import a cache from {}: {error}", self.name());
                    let _ = self.failed.set(solver::redacted(&error).into_owned());
                    Ok(Vec::new())
                }
            }
        };
        let _cancelled = self.loaded.get_or_try_init(load).await;
    }

    /// Why it could not be read, if it could not.
    pub(super) fn failed(&self) -> Option<String> {
        self.failed.get().cloned()
    }

    /// What the client calls it.
    pub(super) fn name(&self) -> String {
        match &self.wanted {
            CacheImport::Registry(reference) => reference.to_string(),
            CacheImport::Local { store, .. } => store.clone(),
            CacheImport::Service(service) => service.name(),
            CacheImport::Unusable { name, .. } => name.clone(),
        }
    }

    fn home(&self) -> Option<CacheHome> {
        match &self.wanted {
            CacheImport::Registry(reference) => Some(CacheHome::Registry(reference.clone())),
            CacheImport::Local { store, .. } => {
                Some(CacheHome::Store(LayoutStore { session: String::new(), store: store.clone() }))
            }
            CacheImport::Service(service) => {
                Some(CacheHome::Service(service.name(), self.service.get()?.clone()))
            }
            CacheImport::Unusable { .. } => None,
        }
    }

    async fn read(&self, parts: &Parts, cx: &VertexContext) -> Result<Vec<Chains>, ImportError> {
        let (bytes, document) = match &self.wanted {
            CacheImport::Registry(reference) => {
                let client = parts.images.client(cx);
                let found = client.head(reference).await?;
                client.fetch_manifest(reference, &found.digest).await?
            }
            CacheImport::Local { digest, .. } => {
                let bytes = self.bytes(parts, &bare(*digest), "cache manifest", MANIFEST_LIMIT, cx).await?;
                let document = Document::parse(&bytes, None)?;
                (bytes, document)
            }
            CacheImport::Service(service) => return self.at_service(service).await,
            CacheImport::Unusable { reason, .. } => return Err(ImportError::Unusable(reason.clone())),
        };
        if let Some(manifest) = CacheManifest::of(&document) {
            let json = self.bytes(parts, &manifest.config, "cache config", CACHE_CONFIG_LIMIT, cx).await?;
            let config: CacheConfig = serde_json::from_slice(&json).map_err(ConfigError::from)?;
            let parsed = blocking(move || Chains::parse(&config, &manifest.layers)).await?;
            return Ok(vec![parsed]);
        }
        let mut chains = Vec::new();
        match document {
            Document::Manifest(manifest) => chains.extend(self.inline(parts, bytes, *manifest, cx).await?),
            Document::Index(index) => {
                for image in index.manifests.iter().filter(|d| !d.is_attestation()).take(MAX_IMAGES) {
                    let (bytes, document) = match self.home() {
                        Some(CacheHome::Registry(reference)) => {
                            parts.images.client(cx).fetch_manifest(&reference, &image.digest).await?
                        }
                        _ => {
                            let bytes = self.bytes(parts, image, "manifest", MANIFEST_LIMIT, cx).await?;
                            let document = Document::parse(&bytes, None)?;
                            (bytes, document)
                        }
                    };
                    if let Document::Manifest(manifest) = document {
                        chains.extend(self.inline(parts, bytes, *manifest, cx).await?);
                    }
                }
            }
        }
        Ok(chains)
    }

    async fn at_service(&self, service: &CacheService) -> Result<Vec<Chains>, ImportError> {
        let store = self.service.get_or_try_init(|| async { service.open().map(Arc::new) }).await?;
        let configs = store.configs().await?;
        let parse =
            move || configs.iter().map(|config| Chains::parse(config, &config.described()?)).collect();
        let parsed: Result<Vec<Chains>, ConfigError> = blocking(parse).await;
        Ok(parsed?)
    }

    /// The cache within an image.
    async fn inline(
        &self,
        parts: &Parts,
        bytes: Vec<u8>,
        manifest: Manifest,
        cx: &VertexContext,
    ) -> Result<Option<Chains>, ImportError> {
        let config = self.bytes(parts, &manifest.config, "config", CONFIG_LIMIT, cx).await?;
        let digest = Digest::of(&bytes);
        let kind = manifest.media_type.clone().unwrap_or_default();
        let descriptor = Descriptor::new(kind, digest, bytes.len() as u64);
        let image = ResolvedImage::new(digest, descriptor, bytes, manifest, config)?;
        Ok(CacheManifest::inline(&image)?)
    }

    async fn bytes(
        &self,
        parts: &Parts,
        blob: &Descriptor,
        what: &'static str,
        limit: u64,
        cx: &VertexContext,
    ) -> Result<Vec<u8>, ImportError> {
        match self.home() {
            Some(CacheHome::Registry(reference)) => {
                Ok(parts.images.client(cx).fetch_bytes(&reference, blob, limit).await?)
            }
            Some(CacheHome::Store(store)) => {
                let read = parts.images.store_document(&store, &blob.digest, what, limit, cx);
                read.await.map_err(ImportError::Store)
            }
            Some(CacheHome::Service(..)) | None => Err(ImportError::Unusable(String::new())),
        }
    }

    /// A result as an output; `None` where it does not say what its layers unpack to, or where they cannot be had.
    pub(super) async fn adopt(
        &self,
        parts: &Parts,
        result: &CacheResult,
        cx: &VertexContext,
    ) -> Option<Output> {
        if result.layers.is_empty() {
            return Some(Output::scratch(Layers::empty()));
        }
        let diff_id = |layer: &Descriptor| layer.annotations.get(UNCOMPRESSED)?.parse::<Digest>().ok();
        let diff_ids = result.layers.iter().map(diff_id).collect::<Option<Vec<_>>>()?;
        let layers = result.layers.iter().cloned().map(|mut layer| {
            layer.annotations.retain(|name, _| name == CREATED);
            layer
        });
        match parts.images.adopt(&self.home()?, layers.collect(), diff_ids, cx).await {
            Ok(output) => Some(output),
            Err(error) => {
                tracing::warn!(build = cx.build, "a cached result cannot be had: {error}");
                None
            }
        }
    }
}

/// A document of which only the digest is known.
fn bare(digest: Digest) -> Descriptor {
    Descriptor::new("", digest, 0)
}

/// By output: where its result is.
pub(super) type Results = BTreeMap<u32, (Arc<Import>, CacheResult)>;
