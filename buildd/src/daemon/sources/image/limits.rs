//! What a source wants of its image besides: that it is a certain one, or only its lower layers.

use std::sync::Arc;

use solver::Digest;
use solver::digest::Hasher;
use solver::op::{SourceOp, attr};

use super::Found;

/// The attributes of a source that say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wishes {
    checksum: Option<Digest>,
    /// At least one.
    layers: Option<usize>,
}

/// The image is not what the source wants, or cannot be.
#[derive(Debug, thiserror::Error)]
pub(super) enum WishError {
    #[error("invalid layer limit {0}")]
    Limit(String),
    #[error("invalid image checksum {0}")]
    Checksum(String),
    #[error("image digest {found} for {name} does not match expected checksum {expected}")]
    Mismatch { found: Digest, name: String, expected: Digest },
}

impl Wishes {
    /// Reads them.
    ///
    /// # Errors
    /// A limit that is no number above zero; a checksum that is none.
    pub(super) fn of_op(op: &SourceOp) -> Result<Self, WishError> {
        let limit =
            op.attrs.get(attr::IMAGE_LAYER_LIMIT).or_else(|| op.attrs.get(attr::OCI_LAYOUT_LAYER_LIMIT));
        let layers = match limit {
            None => None,
            Some(text) => {
                let limit = text.parse().ok().filter(|limit| *limit > 0);
                Some(limit.ok_or_else(|| WishError::Limit(text.clone()))?)
            }
        };
        let checksum = op.attrs.get(attr::IMAGE_CHECKSUM).filter(|text| !text.is_empty());
        let read = |text: &String| text.parse().map_err(|_| WishError::Checksum(text.clone()));
        Ok(Self { checksum: checksum.map(read).transpose()?, layers })
    }

    /// The image, if it is the one that is wanted.
    ///
    /// # Errors
    /// Another one.
    pub(super) fn check(&self, found: Arc<Found>) -> Result<Arc<Found>, WishError> {
        match self.checksum.filter(|expected| *expected != found.image.digest) {
            None => Ok(found),
            Some(expected) => Err(WishError::Mismatch {
                found: found.image.digest,
                name: found.reference.to_string(),
                expected,
            }),
        }
    }

    /// The lower layers of an image that has more than are wanted. They go by a digest of their own: nothing else tells
    /// the files of a whole image from those of a part.
    pub(super) fn limit(&self, found: &Found) -> Option<Found> {
        let layers = self.layers.filter(|layers| *layers < found.layers.len())?;
        let mut limited = found.clone();
        limited.layers = found.layers[..layers].into();
        limited.image.manifest.layers.truncate(layers);
        limited.image.config.rootfs.diff_ids.truncate(layers);
        let mut hasher = Hasher::new("rbuild.image.lower-layers.v1");
        hasher.digest(&found.image.manifest_digest()).u64(layers as u64);
        limited.image.manifest_descriptor.digest = hasher.finish();
        Some(limited)
    }
}

impl Found {
    /// A name that is this part's only, in one build.
    pub(super) fn name_in_build(&self) -> String {
        format!("{} {}", self.reference, self.image.manifest_digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attrs: &[(&str, &str)]) -> Result<Wishes, WishError> {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Wishes::of_op(&SourceOp { identifier: "docker-image://x".to_owned(), attrs })
    }

    #[test]
    fn wishes() {
        assert_eq!(read(&[]).unwrap(), Wishes { checksum: None, layers: None });
        assert_eq!(read(&[(attr::IMAGE_LAYER_LIMIT, "2")]).unwrap().layers, Some(2));
        assert_eq!(read(&[(attr::OCI_LAYOUT_LAYER_LIMIT, "3")]).unwrap().layers, Some(3));
        for bad in ["0", "-1", "x", ""] {
            let err = read(&[(attr::IMAGE_LAYER_LIMIT, bad)]).unwrap_err();
            assert_eq!(err.to_string(), format!("invalid layer limit {bad}"));
        }
        assert!(matches!(read(&[(attr::IMAGE_CHECKSUM, "sha256:x")]), Err(WishError::Checksum(_))));
    }
}
