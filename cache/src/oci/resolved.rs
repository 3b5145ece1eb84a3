//! An image that was looked up: which bytes a name and a platform lead to.

use solver::Digest;

use super::{Descriptor, Error, ImageMetadata, Manifest};

/// One platform's image, with the verified documents that describe it.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedImage {
    /// The digest that the name stands for: of an index, or of the manifest itself.
    pub digest: Digest,
    /// The chosen platform's manifest.
    pub manifest_descriptor: Descriptor,
    /// The manifest's own bytes, those that its digest names.
    pub manifest_bytes: Vec<u8>,
    /// The manifest, parsed.
    pub manifest: Manifest,
    /// The config's own bytes, those that the image ID names.
    pub config_bytes: Vec<u8>,
    /// The config, parsed.
    pub config: ImageMetadata,
}

impl ResolvedImage {
    /// Puts verified documents together.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the numbers of layers and diff IDs differ, or the config cannot be parsed.
    pub fn new(
        digest: Digest,
        manifest_descriptor: Descriptor,
        manifest_bytes: Vec<u8>,
        manifest: Manifest,
        config_bytes: Vec<u8>,
    ) -> Result<Self, Error> {
        let config = ImageMetadata::parse(&config_bytes)?;
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(Error::Unsupported {
                reason: format!("the manifest has {layers} layers, the image config {diff_ids}"),
            });
        }
        Ok(Self { digest, manifest_descriptor, manifest_bytes, manifest, config_bytes, config })
    }

    /// The image ID: the digest of the config.
    pub fn config_digest(&self) -> Digest {
        self.manifest.config.digest
    }

    /// The digest of the platform's manifest.
    pub fn manifest_digest(&self) -> Digest {
        self.manifest_descriptor.digest
    }

    /// The layers, lowest first, each with its diff ID.
    pub fn layers(&self) -> impl Iterator<Item = (&Descriptor, &Digest)> {
        self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids)
    }
}
