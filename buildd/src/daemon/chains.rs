//! From layer ids to directories, trees and views.

use std::path::PathBuf;
use std::sync::Arc;

use cache::layer::Base;
use cache::store::{Store, StoreError};
use cache::tree::{NodeId, Trees};
use cache::view::MergedView;
use solver::{Digest, ExecError, LayerId, Output};

/// Turns outputs of the solver into what file operations and sandboxes work on.
#[derive(Debug, Clone)]
pub(super) struct Chains {
    /// The store that holds the layers.
    pub store: Store,
    /// All content trees.
    pub trees: Arc<Trees>,
}

impl Chains {
    /// The layers' directories, lowest first.
    ///
    /// # Errors
    /// [`ExecError::Changed`] when a layer has been pruned meanwhile: the solver then makes it again.
    pub(super) fn dirs(&self, chain: &[LayerId]) -> Result<Vec<PathBuf>, ExecError> {
        let layers = self.store.layers();
        let mut dirs = Vec::with_capacity(chain.len());
        for id in chain {
            for dir in layers.dirs(id).map_err(from_store)? {
                // Equal steps give equal layers, or layers thin over the same one, and overlayfs refuses a directory that
                // it has already: the topmost counts, as it says again all that the lower one said.
                dirs.retain(|lower| *lower != dir);
                dirs.push(dir);
            }
        }
        Ok(dirs)
    }

    /// A chain as the base of a new layer.
    pub(super) fn base(&self, output: &Output) -> Result<Base, ExecError> {
        let view = MergedView::open(&self.dirs(&output.chain)?).map_err(ExecError::failed)?;
        Ok(Base { trees: self.trees.clone(), root: content(output)?, view: Arc::new(view) })
    }

    /// The content tree of an image, by its platform manifest, where it was put together before.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn image_content(&self, manifest: &Digest) -> Result<Option<NodeId>, ExecError> {
        // Once a node was missed, putting all together again is what heals.
        if self.trees.trusts_roots() { self.store.content(manifest).map_err(from_store) } else { Ok(None) }
    }

    /// The rootfs digest of nothing.
    pub(super) fn empty() -> Digest {
        *Trees::empty().digest()
    }
}

/// The content tree of an output.
///
/// # Errors
/// When the output has not been fetched, which the solver rules out.
pub(super) fn content(output: &Output) -> Result<NodeId, ExecError> {
    output.content.map(NodeId::new).ok_or_else(|| ExecError::failed(Unfetched))
}

/// What a store error means to the solver.
pub(super) fn from_store(error: StoreError) -> ExecError {
    match error {
        StoreError::LayerMissing(id) => ExecError::Changed { path: id.to_string() },
        other => ExecError::failed(other),
    }
}

/// An output was used before its content was known.
#[derive(Debug, thiserror::Error)]
#[error("internal error: a source was used before it was fetched")]
struct Unfetched;
