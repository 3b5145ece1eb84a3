//! What a layer is made on.

use std::sync::Arc;

use crate::tree::{NodeId, Trees};
use crate::view::MergedView;

/// The parent of a new layer: its content tree, and the chain's directories for bytes and real times.
#[derive(Debug, Clone)]
pub struct Base {
    /// The store of trees.
    pub trees: Arc<Trees>,
    /// The parent's tree.
    pub root: NodeId,
    /// The parent's chain.
    pub view: Arc<MergedView>,
}

impl Base {
    /// No parent: an empty file system.
    pub fn scratch(trees: Arc<Trees>) -> Self {
        Self { trees, root: Trees::empty(), view: Arc::new(MergedView::empty()) }
    }
}
