//! What of an image goes elsewhere.

use cache::oci::Descriptor;

/// An image's documents and blobs, all of them in the store.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    /// What names stand for: an index, or the only manifest.
    pub(super) target: Descriptor,
    /// The manifests below the target.
    pub(super) manifests: Vec<Descriptor>,
    /// Layers, configs and statements, each once.
    pub(super) blobs: Vec<Descriptor>,
}

impl Parcel {
    /// Of `blobs` some may be there several times.
    pub(super) fn new(target: Descriptor, manifests: Vec<Descriptor>, mut blobs: Vec<Descriptor>) -> Self {
        blobs.sort_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        Self { target, manifests, blobs }
    }

    /// All there is, what names others after them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Descriptor> {
        self.blobs.iter().chain(&self.manifests).chain([&self.target])
    }
}
