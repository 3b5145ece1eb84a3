//! What is said of images of the store.

use cache::oci::{Descriptor, Document, MANIFEST_LIMIT, media_type};
use cache::store::{ImageRecord, Store};
use solver::Digest;
use tonic::Status;

use crate::daemon::control::store_status;

/// A statement about an image.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    /// Which blob it is.
    pub(super) descriptor: Descriptor,
    /// The manifest of the image.
    pub(super) image: Digest,
    /// Which platform the image is for, where its index says so.
    pub(super) platform: Option<String>,
}

/// What is said of an image and, after that, of those of other platforms under the same name.
///
/// # Errors
/// When the store cannot be read, or holds documents that are none.
pub(super) fn of_image(store: &Store, record: &ImageRecord) -> Result<Vec<Statement>, Status> {
    let Some(Document::Index(index)) = document(store, &record.target.digest)? else { return Ok(Vec::new()) };
    let mut about: Vec<(Digest, &Descriptor)> =
        index.manifests.iter().filter_map(|entry| Some((entry.about()?, entry))).collect();
    about.sort_by_key(|(image, _)| *image != record.manifest);
    let mut all = Vec::new();
    for (image, entry) in about {
        // Those of images for other machines may have been left where they are.
        let Some(Document::Manifest(manifest)) = document(store, &entry.digest)? else { continue };
        let platform = index.manifests.iter().find(|entry| entry.digest == image);
        let platform = platform.and_then(|entry| Some(entry.platform.as_ref()?.full()));
        // Whatever else an index calls by that name: nobody is shown an image's config or layers for it.
        let statements =
            manifest.layers.into_iter().filter(|layer| media_type::is_statement(&layer.media_type));
        all.extend(statements.map(|descriptor| Statement { descriptor, image, platform: platform.clone() }));
    }
    Ok(all)
}

/// Whether a blob is a statement about an image of the store.
///
/// # Errors
/// As [`of_image`].
pub(super) fn contain(store: &Store, digest: &Digest) -> Result<bool, Status> {
    for (_, record) in store.images().list().map_err(store_status)? {
        if record.blobs.contains(digest)
            && of_image(store, &record)?.iter().any(|said| said.descriptor.digest == *digest)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A manifest or index; `None` where it is not here.
fn document(store: &Store, digest: &Digest) -> Result<Option<Document>, Status> {
    let blobs = store.blobs();
    if blobs.size(digest).map_err(store_status)?.is_none() {
        return Ok(None);
    }
    let bytes = blobs.read(digest, MANIFEST_LIMIT).map_err(store_status)?;
    Document::parse(&bytes, None).map(Some).map_err(|e| Status::internal(e.to_string()))
}
