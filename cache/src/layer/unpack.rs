//! Layer tar to directory.

use std::io::Read;
use std::path::Path;

use solver::{Digest, LayerId};

use super::base::Base;
use super::entry::CommittedLayer;
use super::error::LayerError;

/// Bounds on what an archive may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of the uncompressed stream.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
}

/// An unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The layer; its `id` is that of [`Unpacked::layer_id`].
    pub layer: CommittedLayer,
    /// SHA-256 of the uncompressed stream: the caller compares it with the image config before it names the layer.
    pub diff_id: Digest,
    /// Whether the directory depends on the parent (opaque marks, links into it, parents left out): then the id does.
    pub depends_on_parent: bool,
}

impl Unpacked {
    /// The id of a pulled layer: of its diff ID alone, or of diff ID and parent tree where the directory depends on both.
    pub fn layer_id(diff_id: &Digest, parent: Option<&crate::tree::NodeId>) -> LayerId {
        todo!()
    }
}

/// Unpacks an uncompressed layer tar into the new directory `dir`, in normal form, over `base`.
///
/// Reads `input` to its end, so that its hash is that of the whole stream.
///
/// # Errors
/// [`LayerError::Tar`] for a damaged or ambiguous archive, [`LayerError::TooLarge`], or when the directory cannot be
/// written. The directory is then useless.
pub fn unpack(
    input: impl Read,
    dir: &Path,
    base: Base,
    limits: UnpackLimits,
) -> Result<Unpacked, LayerError> {
    todo!()
}
