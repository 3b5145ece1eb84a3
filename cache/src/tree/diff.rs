//! The difference of two trees.

use super::error::TreeError;
use super::node::NodeId;
use super::path::TreePath;
use super::trees::Trees;
use crate::layer::Change;

impl Trees {
    /// What has to be applied to `lower` to give `upper`, in walk order; subtrees with equal nodes are not entered.
    ///
    /// Parents of changes are not in the list unless they changed themselves. A removed directory is one
    /// whiteout; a directory that replaces something else comes with all that it holds.
    /// Times of [`Change::Put`] are those that count, else 0: the bytes and times come from a view of `upper`.
    ///
    /// # Errors
    /// When a node is missing or damaged, or the storage fails.
    pub fn diff(&self, lower: &NodeId, upper: &NodeId) -> Result<Vec<(TreePath, Change)>, TreeError> {
        todo!()
    }
}
