//! What of an image goes elsewhere.

use std::collections::HashMap;

use cache::oci::Descriptor;
use solver::Digest;

use super::layers::LayerBlob;

/// An image's documents, which are in the store, and blobs.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    /// What names stand for: an index, or the only manifest.
    pub(super) target: Descriptor,
    /// The manifests below the target.
    pub(super) manifests: Vec<Descriptor>,
    /// Layers, configs and statements, each once.
    pub(super) blobs: Vec<Descriptor>,
    /// Layers among the blobs, of which some may be elsewhere only.
    pub(super) layers: HashMap<Digest, LayerBlob>,
}

impl Parcel {
    /// Of `blobs` some may be there several times.
    pub(super) fn new(target: Descriptor, manifests: Vec<Descriptor>, mut blobs: Vec<Descriptor>) -> Self {
        blobs.sort_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        Self { target, manifests, blobs, layers: HashMap::new() }
    }

    /// These are layers, which need not be in the store before somebody reads them.
    pub(super) fn with_layers(mut self, layers: impl IntoIterator<Item = LayerBlob>) -> Self {
        self.layers.extend(layers.into_iter().map(|layer| (layer.descriptor.digest, layer)));
        self
    }

    /// All there is, what names others after them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Descriptor> {
        self.blobs.iter().chain(&self.manifests).chain([&self.target])
    }
}
