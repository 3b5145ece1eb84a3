//! How a cache lies at a registry or in a directory: as an image's manifest, as an index, or within an image.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;
use solver::Digest;

use super::chains::{Chains, for_layers};
use super::config::{CacheConfig, ConfigError, ConfigLayer};
use crate::oci::{Descriptor, Document, Index, Manifest, ResolvedImage, media_type};

/// The media type of a cache's config.
pub const MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// The annotation of a layer that tells its diff ID (containerd).
pub const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// The annotation of a layer that tells when it was made, in RFC 3339.
pub const CREATED: &str = "buildkit/createdat";

/// The field of an image's config that holds its cache, in base64.
pub const INLINE_FIELD: &str = "moby.buildkit.cache.v0";

/// A cache's documents.
#[derive(Debug, Clone)]
pub struct CacheManifest {
    /// Where the config is.
    pub config: Descriptor,
    /// The layers by digest.
    pub layers: BTreeMap<Digest, Descriptor>,
}

impl CacheManifest {
    /// The cache that a manifest or an index is; `None` for what is an image, which may have a cache within.
    pub fn of(document: &Document) -> Option<Self> {
        let (configs, layers): (Vec<_>, Vec<_>) = match document {
            Document::Manifest(manifest) => {
                let all = std::iter::once(&manifest.config).chain(&manifest.layers);
                all.cloned().partition(|d| d.media_type == MEDIA_TYPE)
            }
            Document::Index(index) => {
                index.manifests.iter().cloned().partition(|d| d.media_type == MEDIA_TYPE)
            }
        };
        let config = configs.into_iter().next()?;
        Some(Self { config, layers: layers.into_iter().map(|layer| (layer.digest, layer)).collect() })
    }

    /// The document of a cache with this config and these layers, and its media type.
    pub fn document(
        config: Descriptor,
        layers: Vec<Descriptor>,
        oci: bool,
        image: bool,
    ) -> (Vec<u8>, &'static str) {
        if image {
            let kind = media_type::OCI_MANIFEST;
            let manifest = Manifest { media_type: Some(kind.to_owned()), ..Manifest::new(config, layers) };
            return (manifest.to_json(), kind);
        }
        let kind = if oci { media_type::OCI_INDEX } else { media_type::DOCKER_INDEX };
        let all = layers.into_iter().chain([config]).collect();
        let index = Index { media_type: Some(kind.to_owned()), ..Index::new(all) };
        (index.to_json(), kind)
    }

    /// The cache within an image; `None` for an image without one.
    ///
    /// # Errors
    /// A malformed cache.
    pub fn inline(image: &ResolvedImage) -> Result<Option<Chains>, ConfigError> {
        let Some(Value::String(encoded)) = image.config.extra.get(INLINE_FIELD) else { return Ok(None) };
        let json = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .map_err(|e| ConfigError::Json(serde::de::Error::custom(e)))?;
        let mut config = CacheConfig { records: serde_json::from_slice(&json)?, ..CacheConfig::default() };
        let mut created =
            image.config.history.iter().filter(|step| !step.empty_layer).map(|step| &step.created);
        let mut layers = BTreeMap::new();
        for (i, (layer, diff_id)) in image.layers().enumerate() {
            config.layers.push(ConfigLayer { blob: layer.digest, parent: i as i64 - 1, annotations: None });
            let mut layer = layer.clone();
            layer.annotations.insert(UNCOMPRESSED.to_owned(), diff_id.to_string());
            if let Some(Some(at)) = created.next() {
                layer.annotations.insert(CREATED.to_owned(), at.clone());
            }
            layers.insert(layer.digest, layer);
        }
        Chains::parse(&config, &layers).map(Some)
    }

    /// The value of [`INLINE_FIELD`] for an image with these layers; `None` where no result is made of them.
    pub fn to_inline(chains: &Chains, image: &[Digest]) -> Option<String> {
        let (config, _) = chains.marshal();
        let records = for_layers(&config, image);
        if records.iter().all(|record| record.results.is_empty() && record.chains.is_empty()) {
            return None;
        }
        let json = serde_json::to_vec(&records).ok()?;
        Some(base64::engine::general_purpose::STANDARD.encode(json))
    }
}
