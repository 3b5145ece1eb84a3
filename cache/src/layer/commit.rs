//! From an overlay upper directory to a layer in normal form.

use std::path::Path;

use super::base::Base;
use super::entry::CommittedLayer;
use super::error::LayerError;
use super::window::RunWindow;
use crate::tree::TreePath;

/// What [`commit`] needs.
#[derive(Debug)]
pub struct CommitRequest<'a> {
    /// The upper directory of an overlay that is no longer mounted; changed in place.
    pub upper: &'a Path,
    /// What the overlay's lower directories were.
    pub base: &'a Base,
    /// When the step ran.
    pub window: RunWindow,
    /// Mount points and their parents that were made for the step: removed where they are still empty.
    pub stubs: &'a [TreePath],
}

/// Brings an upper directory into normal form, hashes it and extends the parent's tree.
///
/// Blocking; uses up to two threads. Never follows symbolic links.
///
/// # Errors
/// When the directory or the parent cannot be read or changed. The directory is then useless.
pub fn commit(request: &CommitRequest<'_>) -> Result<CommittedLayer, LayerError> {
    todo!()
}
