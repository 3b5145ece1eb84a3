//! Looking up paths and listing directories.

use super::error::TreeError;
use super::node::{Node, NodeId};
use super::path::TreePath;
use super::trees::{TreeEntry, Trees};

/// What to do with a symbolic link in the last component; those before it are always followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// The link itself is meant.
    No,
    /// What it leads to is meant.
    Last,
}

/// Where a path led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The real path: no component but the last is a symbolic link.
    pub path: TreePath,
    /// What is there; `None` when the last component does not exist in an existing directory.
    pub node: Option<Node>,
}

impl Trees {
    /// The object at exactly `path`, no symbolic link followed; `None` when there is none. The root is a plain directory.
    ///
    /// # Errors
    /// When a node is missing or damaged, or the storage fails.
    pub fn get(&self, root: &NodeId, path: &TreePath) -> Result<Option<Node>, TreeError> {
        todo!()
    }

    /// Resolves `path` inside the root as `openat2(RESOLVE_IN_ROOT)` does: absolute links start at the root, `..` stops there.
    ///
    /// # Errors
    /// [`TreeError::NotFound`] when a directory on the way is missing, [`TreeError::NotADirectory`],
    /// [`TreeError::TooManyLinks`]; otherwise as [`Self::get`].
    pub fn resolve(&self, root: &NodeId, path: &[u8], follow: Follow) -> Result<Found, TreeError> {
        todo!()
    }

    /// The names in the directory at exactly `path`, sorted by bytes.
    ///
    /// # Errors
    /// [`TreeError::NotFound`], [`TreeError::NotADirectory`]; otherwise as [`Self::get`].
    pub fn list(&self, root: &NodeId, path: &TreePath) -> Result<Vec<TreeEntry>, TreeError> {
        todo!()
    }

    /// Calls `visit` for everything below the directory at `path`, in walk order, with paths from the root.
    /// When it returns false for a directory, what is below that is left out.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn walk(
        &self,
        root: &NodeId,
        path: &TreePath,
        visit: &mut dyn FnMut(&TreePath, &Node) -> bool,
    ) -> Result<(), TreeError> {
        todo!()
    }
}
