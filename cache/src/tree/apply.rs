//! Applying a layer to a tree.

use super::error::TreeError;
use super::node::NodeId;
use super::trees::Trees;
use crate::layer::Entries;

impl Trees {
    /// Applies the entries of a layer to `root` and stores the touched nodes; gives the new root.
    ///
    /// Missing parents become plain directories; a whiteout of what does not exist changes nothing.
    ///
    /// # Errors
    /// When a node is missing or damaged, or the storage fails.
    pub fn apply(&self, root: NodeId, layer: &Entries) -> Result<NodeId, TreeError> {
        todo!()
    }

    /// Applies several layers, bottom first: a chain or a merge.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_all<'a>(
        &self,
        root: NodeId,
        layers: impl IntoIterator<Item = &'a Entries>,
    ) -> Result<NodeId, TreeError> {
        todo!()
    }
}
