//! The layer that actions write to, and what all of them do to it.

use std::path::PathBuf;

use super::env::FileOpEnv;
use super::error::ActionError;
use super::resolve::root_path;
use crate::layer::{LayerBuilder, Meta};
use crate::tree::{Node, TreePath};

/// Owner and group.
pub(super) type Owner = (u32, u32);

/// A layer under construction and its directory.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) layer: LayerBuilder,
    pub(super) dir: PathBuf,
}

impl Target {
    pub(super) fn new(layer: LayerBuilder, dir: PathBuf) -> Self {
        Self { layer, dir }
    }

    /// The object at exactly `path`; the root is a directory.
    pub(super) fn get(&self, path: &TreePath) -> Result<Option<Node>, ActionError> {
        if path.is_root() {
            return Ok(Some(Node::plain_dir()));
        }
        Ok(self.layer.get(path)?)
    }

    /// Follows all links; what does not exist is passed over.
    pub(super) fn resolve(&self, path: &TreePath) -> Result<TreePath, ActionError> {
        root_path(&|path| self.get(path), &TreePath::root(), path.as_bytes())
    }

    /// Makes a directory and its missing parents; existing ones stay as they are.
    pub(super) fn mkdir_all(&self, path: &TreePath, meta: &Meta) -> Result<(), ActionError> {
        match self.get(path)? {
            Some(node) if node.is_dir() => return Ok(()),
            Some(_) => return Err(ActionError::NotADirectory { action: "mkdir", path: path.clone() }),
            None => {}
        }
        if let Some(parent) = path.parent() {
            self.mkdir_all(&parent, meta)?;
        }
        Ok(self.layer.mkdir(path, meta)?)
    }

    /// Fails as a system call does whose parent directory is missing or none.
    pub(super) fn check_parent(&self, action: &'static str, path: &TreePath) -> Result<(), ActionError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        match self.get(&parent)? {
            Some(node) if node.is_dir() => Ok(()),
            Some(_) => Err(ActionError::NotADirectory { action, path: path.clone() }),
            None => Err(ActionError::NotFound { action, path: path.clone() }),
        }
    }
}

/// The time of what gets no other, in nanoseconds since 1970.
pub(super) fn now_ns(env: &FileOpEnv<'_>) -> i64 {
    let since = env.now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The attributes of something made anew.
pub(super) fn new_meta(mode: u32, owner: Option<Owner>, mtime: Option<i64>, env: &FileOpEnv<'_>) -> Meta {
    let (uid, gid) = owner.unwrap_or_default();
    Meta { mode, uid, gid, mtime: mtime.unwrap_or_else(|| now_ns(env)), xattrs: Vec::new() }
}
