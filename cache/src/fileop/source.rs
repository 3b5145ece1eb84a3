//! File systems that actions read from.

use std::fs::File;
use std::io;

use super::error::ActionError;
use super::resolve::{parent_path, root_path};
use crate::context::Context;
use crate::layer::{Base, LayerBuilder};
use crate::tree::{FileDigest, Node, NodeId, TreeEntry, TreePath, Trees};

/// What is copied from, or looked up in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// Nothing.
    Scratch,
    /// A chain of layers.
    Chain(&'a Base),
    /// A client's directory.
    Context(&'a Context),
    /// The result of an earlier action.
    Built(&'a LayerBuilder),
    /// A tree without its files' bytes: enough to look up.
    Tree(&'a Trees, &'a NodeId),
}

impl<'a> Source<'a> {
    /// The object at exactly `path`; the root is a directory.
    pub(super) fn get(&self, path: &TreePath) -> Result<Option<Node>, ActionError> {
        if path.is_root() {
            return Ok(Some(Node::plain_dir()));
        }
        match self.tree() {
            Some((trees, root)) => Ok(trees.get(root, path)?),
            None => match self {
                Self::Built(layer) => Ok(layer.get(path)?),
                _ => Ok(None),
            },
        }
    }

    /// What the directory at exactly `path` holds, sorted by name.
    pub(super) fn list(&self, path: &TreePath) -> Result<Vec<TreeEntry>, ActionError> {
        match self.tree() {
            Some((trees, root)) => Ok(trees.list(root, path)?),
            None => match self {
                Self::Built(layer) => Ok(layer.list(path)?),
                _ => Ok(Vec::new()),
            },
        }
    }

    /// Resolves a path; a link in the last component only if `follow`.
    pub(super) fn resolve(&self, path: &[u8], follow: bool) -> Result<TreePath, ActionError> {
        let lookup = |path: &TreePath| self.get(path);
        let root = TreePath::root();
        if follow { root_path(&lookup, &root, path) } else { parent_path(&lookup, &root, path) }
    }

    /// Opens the regular file at exactly `path`.
    pub(super) fn open(&self, path: &TreePath) -> Result<File, ActionError> {
        match self {
            Self::Scratch | Self::Tree(..) => {
                Err(ActionError::NotFound { action: "open", path: path.clone() })
            }
            Self::Chain(base) => {
                let found = base.view.get(path)?.ok_or_else(|| ActionError::Damaged(path.clone()))?;
                Ok(base.view.open_file(&found)?)
            }
            Self::Context(context) => context.open(path).map_err(|source| context_error(path, source)),
            Self::Built(layer) => Ok(layer.open(path)?),
        }
    }

    /// The real modification time of an object whose tree does not tell it; `None` when nothing does.
    pub(super) fn disk_mtime(&self, path: &TreePath) -> Result<Option<i64>, ActionError> {
        match self {
            Self::Chain(base) => Ok(base.view.get(path)?.map(|found| found.stat.mtime)),
            _ => Ok(None),
        }
    }

    /// What a copied file whose bytes are not those of the tree means.
    pub(super) fn changed(&self, path: &TreePath) -> ActionError {
        match self {
            Self::Context(_) => ActionError::ContextChanged(path.clone()),
            _ => ActionError::Damaged(path.clone()),
        }
    }

    /// The context whose files only its own threads may open.
    pub(super) fn guarded_context(&self) -> Option<&'a Context> {
        match self {
            Self::Context(context) if context.has_identity() => Some(context),
            _ => None,
        }
    }

    fn tree(&self) -> Option<(&'a Trees, &'a NodeId)> {
        match self {
            Self::Chain(base) => Some((&base.trees, &base.root)),
            Self::Context(context) => Some((&context.trees, &context.root)),
            Self::Tree(trees, root) => Some((trees, root)),
            Self::Scratch | Self::Built(_) => None,
        }
    }
}

/// A file that was there during the walk and cannot be opened as a file now has changed.
fn context_error(path: &TreePath, source: io::Error) -> ActionError {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound};
    let looped = source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    match source.kind() {
        NotFound | NotADirectory | InvalidInput => ActionError::ContextChanged(path.clone()),
        _ if looped => ActionError::ContextChanged(path.clone()),
        _ => ActionError::Source { path: path.clone(), source },
    }
}

/// Checks the digest of copied bytes.
pub(super) fn check_digest(
    source: &Source<'_>,
    path: &TreePath,
    want: &FileDigest,
    got: &FileDigest,
) -> Result<(), ActionError> {
    if want == got { Ok(()) } else { Err(source.changed(path)) }
}
