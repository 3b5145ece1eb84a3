//! Manifests and configs, kept as blobs so that a digest is asked for once.

use cache::registry::DocumentCache;
use cache::store::{BlobPurpose, Lease, Store};
use solver::Digest;

/// The store's blobs, under the lease of a build.
///
/// What a client names by its digest is taken from here only where its repository is known to have it: a digest that
/// somebody learned of does not open what somebody else pulled.
pub(super) struct Documents {
    pub(super) store: Store,
    pub(super) lease: Lease,
    /// The repository that is asked, with its registry.
    pub(super) repository: String,
    /// The digest that the client named.
    pub(super) named: Option<Digest>,
}

/// Manifests and configs are smaller than this.
const LIMIT: u64 = 16 << 20;

impl DocumentCache for Documents {
    fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        let blobs = self.store.blobs();
        if self.named == Some(*digest) && !blobs.has_origin(digest, &self.repository).unwrap_or(false) {
            return None;
        }
        blobs.hold(&self.lease, digest).ok().flatten()?;
        blobs.read(digest, LIMIT).ok()
    }

    fn put(&self, digest: &Digest, media_type: &str, bytes: &[u8]) {
        let purpose = BlobPurpose { description: media_type.to_owned(), ..BlobPurpose::default() };
        if let Err(e) = self.store.blobs().put(&self.lease, bytes, purpose) {
            tracing::warn!(%digest, "cannot keep a document: {e}");
        }
    }
}
