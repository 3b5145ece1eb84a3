//! A layer that turns one file system into another.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{LayerBuilder, Meta, Special};
use crate::layer::base::Base;
use crate::layer::entry::{Change, CommittedLayer};
use crate::layer::error::LayerError;
use crate::layer::normal::Time;
use crate::layer::window::RunWindow;
use crate::tree::{Kind, Node, TreePath};
use crate::view::Located;

/// The first path of each file with several names, by layer and inode.
type Links = HashMap<(usize, u64), TreePath>;

/// Makes, in the new directory `dir`, the layer that has to be put on `lower` to give `upper`. The two need not share
/// anything; what is equal in both is left out. `None` when `cancel` was set meanwhile.
///
/// # Errors
/// When either cannot be read or `dir` not be written.
pub fn difference(
    lower: Base,
    upper: &Base,
    dir: &Path,
    cancel: &AtomicBool,
) -> Result<Option<CommittedLayer>, LayerError> {
    let changes = upper.trees.diff(&lower.root, &upper.root)?;
    let builder = LayerBuilder::create(dir, lower)?;
    let mut links = Links::new();
    for (path, change) in changes {
        if cancel.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match change {
            Change::Whiteout => drop(builder.remove(&path)?),
            Change::Put { node, .. } => builder.take(upper, &path, &node, &mut links)?,
        }
    }
    builder.finish(RunWindow::none()).map(Some)
}

impl LayerBuilder {
    /// Makes at `path` what `upper` has there.
    fn take(&self, upper: &Base, path: &TreePath, node: &Node, links: &mut Links) -> Result<(), LayerError> {
        let found = upper.view.get(path)?.ok_or_else(|| LayerError::NotFound(path.clone()))?;
        if self.get(path)?.is_some_and(|old| old.is_dir() != node.is_dir()) {
            self.remove(path)?;
        }
        if let (Kind::File { .. }, true) = (&node.kind, found.stat.nlink > 1) {
            if let Some(first) = links.get(&(found.layer, found.stat.ino)) {
                return self.hardlink(first, path);
            }
            links.insert((found.layer, found.stat.ino), path.clone());
        }
        self.take_object(upper, path, node, &found)?;
        // Times count in the layer as they count in `upper`.
        if let Some(slot) = self.state().slots.get_mut(path) {
            slot.time = Time::Inherited(node.mtime);
        }
        Ok(())
    }

    fn take_object(
        &self,
        upper: &Base,
        path: &TreePath,
        node: &Node,
        found: &Located,
    ) -> Result<(), LayerError> {
        let (mode, uid, gid) = (node.mode, node.uid, node.gid);
        let meta = Meta { mode, uid, gid, mtime: found.stat.mtime, xattrs: node.xattrs.clone() };
        match &node.kind {
            Kind::Dir => self.mkdir(path, &meta),
            Kind::File { .. } => {
                let source = upper.view.open_file(found)?;
                self.copy_file(path, &meta, &source).map(drop)
            }
            Kind::Symlink { target } => self.symlink(path, target, &meta),
            Kind::CharDevice { major, minor } => {
                self.special(path, Special::CharDevice { major: *major, minor: *minor }, &meta)
            }
            Kind::BlockDevice { major, minor } => {
                self.special(path, Special::BlockDevice { major: *major, minor: *minor }, &meta)
            }
            Kind::Fifo => self.special(path, Special::Fifo, &meta),
            Kind::Socket => self.make_other(path, Kind::Socket, &meta),
        }
    }
}
