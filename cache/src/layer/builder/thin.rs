//! Thin layers under construction: what the backing has is only noted, and directories wait until something is put
//! into them.

use std::os::fd::AsFd;

use super::state::{Slot, State};
use super::write::node_of;
use super::{LayerBuilder, Meta};
use crate::layer::backing::{Backing, cost_of};
use crate::layer::entry::Change;
use crate::layer::error::LayerError;
use crate::layer::normal::{Time, io_error, make_whiteout};
use crate::tree::{FileDigest, Kind, Node, TreePath};
use crate::view::disk;

/// What stands between a directory and what a layer over its backing shows.
#[derive(Debug, Default)]
struct Gap {
    /// Names that only the backing has.
    surplus: Vec<TreePath>,
    /// Directories where the backing has something else.
    replaced: Vec<TreePath>,
}

impl LayerBuilder {
    /// Lets the layer be thin over `backing`, if at its end enough of it is the same there.
    #[must_use]
    pub fn thin_over(mut self, backing: Option<Backing>) -> Self {
        self.backing = backing;
        self
    }

    /// Makes a file of what the backing has there, without a look at any file; `false` when that is another one.
    ///
    /// # Errors
    /// As [`Self::write_file`].
    pub fn take_from_backing(
        &self,
        path: &TreePath,
        meta: &Meta,
        size: u64,
        content: FileDigest,
    ) -> Result<bool, LayerError> {
        self.borrow(path, &Kind::File { size, content }, meta)
    }

    /// As [`Self::take_from_backing`], for whatever is no directory.
    pub(super) fn borrow(&self, path: &TreePath, kind: &Kind, meta: &Meta) -> Result<bool, LayerError> {
        let lent = self.backing.as_ref().and_then(|backing| backing.lends(path, kind, meta));
        let Some(xattrs) = lent else { return Ok(false) };
        let node = node_of(kind.clone(), meta, xattrs.clone());
        let mut state = self.state();
        self.clear_way(&mut state, path)?;
        let slot = Slot { node, mtime: meta.mtime, inode: None, time: Time::Own, own: false, opaque: false };
        state.slots.insert(path.clone(), slot);
        Ok(true)
    }

    /// Puts what was taken from the backing into the layer's own directory.
    pub(super) fn own(&self, path: &TreePath) -> Result<(), LayerError> {
        let mut state = self.state();
        let Some(slot) = state.slots.get(path).filter(|slot| !slot.own).cloned() else { return Ok(()) };
        if slot.node.is_dir() {
            return self.make_pending(&mut state, path);
        }
        drop(state);
        let Node { kind, mode, uid, gid, xattrs, .. } = slot.node;
        let meta = Meta { mode, uid, gid, mtime: slot.mtime, xattrs };
        match kind {
            Kind::File { .. } => {
                let file = self.open_in_backing(path)?;
                self.copy_file(path, &meta, &file).map(drop)
            }
            kind => self.put_other(path, kind, &meta),
        }
    }

    pub(super) fn open_in_backing(&self, path: &TreePath) -> Result<std::fs::File, LayerError> {
        let backing = self.backing.as_ref().ok_or_else(|| LayerError::NotFound(path.clone()))?;
        let open = || disk::open_file(disk::open_root(&backing.dir)?.as_fd(), path.as_bytes());
        open().map_err(|e| io_error("open", path, e))
    }

    /// Makes a directory that waited for something to be put into it.
    pub(super) fn make_pending(&self, state: &mut State, dir: &TreePath) -> Result<(), LayerError> {
        if state.slots.get(dir).is_none_or(|slot| slot.own) {
            return Ok(());
        }
        self.mkdir_on_disk(state, dir)?;
        if let Some(slot) = state.slots.get_mut(dir) {
            slot.own = true;
        }
        Ok(())
    }

    /// Decides whether the layer stays thin, and makes its directory complete either way but for the attributes of
    /// directories. Says whether it is thin.
    pub(super) fn settle_thin(&self) -> Result<bool, LayerError> {
        let Some(backing) = &self.backing else { return Ok(false) };
        match self.gap(backing)? {
            Some(gap) => self.close(backing, gap).map(|()| true),
            None => {
                let borrowed: Vec<TreePath> = {
                    let state = self.state();
                    state.slots.iter().filter(|(_, slot)| !slot.own).map(|(path, _)| path.clone()).collect()
                };
                borrowed.iter().try_for_each(|path| self.own(path)).map(|()| false)
            }
        }
    }

    /// Compares layer and backing; `None` when the layer cannot be thin, or being so is not worth it.
    fn gap(&self, backing: &Backing) -> Result<Option<Gap>, LayerError> {
        let state = self.state();
        let lent = state.slots.values().filter(|slot| !slot.own).map(|slot| cost_of(&slot.node)).sum();
        if !backing.is_worth(lent) {
            return Ok(None);
        }
        let mut gap = Gap::default();
        // What lies below it is hidden with it.
        let mut hidden: Option<&TreePath> = None;
        for entry in backing.entries() {
            let path = &entry.path;
            if hidden.is_some_and(|dir| path.starts_with(dir)) {
                continue;
            }
            let was_dir = matches!(&entry.change, Change::Put { node, .. } if node.is_dir());
            let list = match state.slots.get(path) {
                None => &mut gap.surplus,
                Some(slot) if slot.node.is_dir() && !was_dir => &mut gap.replaced,
                Some(slot) => {
                    if !slot.node.is_dir() {
                        hidden = Some(path);
                    }
                    continue;
                }
            };
            hidden = Some(path);
            if self.base_node(path)?.is_some() {
                return Ok(None);
            }
            list.push(path.clone());
        }
        Ok(Some(gap))
    }

    /// Makes the directories that differ from the backing's, and hides what only that one has.
    fn close(&self, backing: &Backing, gap: Gap) -> Result<(), LayerError> {
        let mut state = self.state();
        let same = |path: &TreePath, slot: &Slot| {
            let Node { mode, uid, gid, ref xattrs, .. } = slot.node;
            let meta = Meta { mode, uid, gid, mtime: slot.mtime, xattrs: xattrs.clone() };
            backing.lends(path, &Kind::Dir, &meta).is_some()
        };
        let pending = state.slots.iter().filter(|(_, slot)| slot.node.is_dir() && !slot.own);
        let mut dirs: Vec<TreePath> =
            pending.filter(|(path, slot)| !same(path, slot)).map(|(path, _)| path.clone()).collect();
        let hiding = gap.surplus.iter().chain(&state.whiteouts).filter_map(TreePath::parent);
        dirs.extend(hiding.chain(gap.replaced));
        dirs.extend(self.hidden(&state)?.iter().filter_map(TreePath::parent));
        dirs.iter().try_for_each(|dir| self.make_pending(&mut state, dir))?;
        for path in &gap.surplus {
            make_whiteout(self.root.as_fd(), path).map_err(|e| io_error("make a whiteout for", path, e))?;
        }
        Ok(())
    }
}
