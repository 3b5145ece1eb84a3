//! Looking up paths and listing directories.

use std::sync::Arc;

use super::codec::{Child, DirNode};
use super::error::TreeError;
use super::node::{Kind, Node, NodeId};
use super::path::TreePath;
use super::resolve::{Missing, ResolveError, Step, resolve};
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
    /// The object at exactly `path`, no symbolic link followed; `None` when there is none. The root is a plain
    /// directory.
    ///
    /// # Errors
    /// When a node is missing or damaged, or the storage fails.
    pub fn get(&self, root: &NodeId, path: &TreePath) -> Result<Option<Node>, TreeError> {
        if path.is_root() {
            return Ok(Some(Node::plain_dir()));
        }
        Ok(self.child_at(root, path)?.map(|child| child.node))
    }

    /// Resolves `path` inside the root as `openat2(RESOLVE_IN_ROOT)` does: absolute links start at the root, `..`
    /// stops there. Empty components (a trailing slash too) and `.` mean nothing.
    ///
    /// # Errors
    /// [`TreeError::NotFound`] when a directory on the way is missing, [`TreeError::NotADirectory`],
    /// [`TreeError::TooManyLinks`]; otherwise as [`Self::get`].
    pub fn resolve(&self, root: &NodeId, path: &[u8], follow: Follow) -> Result<Found, TreeError> {
        let real = resolve(path, follow, Missing::Error, |p| Ok(self.get(root, p)?.as_ref().map(Step::of)))
            .map_err(|e| e.into_tree_error(path))?;
        let node = self.get(root, &real)?;
        Ok(Found { path: real, node })
    }

    /// The names in the directory at exactly `path`, sorted by bytes.
    ///
    /// # Errors
    /// [`TreeError::NotFound`], [`TreeError::NotADirectory`]; otherwise as [`Self::get`].
    pub fn list(&self, root: &NodeId, path: &TreePath) -> Result<Vec<TreeEntry>, TreeError> {
        let dir = self.dir_at(root, path)?;
        Ok(dir.children.iter().map(|c| TreeEntry { name: c.name.clone(), node: c.node.clone() }).collect())
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
        let dir = self.dir_at(root, path)?;
        self.walk_dir(&dir, path, visit)
    }

    fn walk_dir(
        &self,
        dir: &DirNode,
        path: &TreePath,
        visit: &mut dyn FnMut(&TreePath, &Node) -> bool,
    ) -> Result<(), TreeError> {
        for child in &dir.children {
            let path = path.child(&child.name);
            let descend = visit(&path, &child.node);
            if let (true, Some(contents)) = (descend, child.contents) {
                self.walk_dir(&*self.load(&contents.id)?, &path, visit)?;
            }
        }
        Ok(())
    }

    /// The directory entry at exactly `path`, which is not the root.
    pub(crate) fn child_at(&self, root: &NodeId, path: &TreePath) -> Result<Option<Child>, TreeError> {
        let mut id = *root;
        let mut found = None;
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            let dir = self.load(&id)?;
            let Some(child) = dir.child(name) else { return Ok(None) };
            if names.peek().is_none() {
                found = Some(child.clone());
            } else if let Some(contents) = child.contents {
                id = contents.id;
            } else {
                return Ok(None);
            }
        }
        Ok(found)
    }

    /// The node of the directory at exactly `path`.
    pub(crate) fn dir_at(&self, root: &NodeId, path: &TreePath) -> Result<Arc<DirNode>, TreeError> {
        if path.is_root() {
            return self.load(root);
        }
        let child = self.child_at(root, path)?.ok_or_else(|| TreeError::NotFound(path.clone()))?;
        let contents = child.contents.ok_or_else(|| TreeError::NotADirectory(path.clone()))?;
        self.load(&contents.id)
    }
}

impl Step {
    /// What the resolver has to know of a node.
    pub(crate) fn of(node: &Node) -> Self {
        match &node.kind {
            Kind::Dir => Self::Dir,
            Kind::Symlink { target } => Self::Link(target.clone()),
            _ => Self::Other,
        }
    }
}

impl ResolveError<TreeError> {
    /// As an error of the tree; `path` is what was to be resolved.
    fn into_tree_error(self, path: &[u8]) -> TreeError {
        match self {
            Self::NotFound(at) => TreeError::NotFound(at),
            Self::NotADirectory(at) => TreeError::NotADirectory(at),
            Self::TooManyLinks => TreeError::TooManyLinks(path.into()),
            Self::Path(e) => e.into(),
            Self::Get(e) => e,
        }
    }
}
