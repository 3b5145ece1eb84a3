//! Ending a layer.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;

use super::state::{Slot, State};
use super::{LayerBuilder, Meta};
use crate::layer::backing::Backing;
use crate::layer::entry::{Change, CommittedLayer};
use crate::layer::error::LayerError;
use crate::layer::normal::{Item, Place, Settle, Time, io_error};
use crate::layer::window::RunWindow;
use crate::tree::{Kind, Node, NodeId, TreePath};
use crate::view::disk;

/// What is written for a file of one byte, as nearly all file systems allocate.
const BLOCK: u64 = 4096;

impl LayerBuilder {
    /// Whether the layer holds anything that came from the base.
    pub(in crate::layer) fn took_from_base(&self) -> bool {
        self.state().took_from_base
    }

    /// Hides what the base has at `path` in an archive's layer, which takes effect at the end: a directory of the
    /// layer at that path replaces the base's, anything else needs no mark.
    pub(in crate::layer) fn hide(&self, path: &TreePath) -> Result<(), LayerError> {
        let mut state = self.state();
        match state.slots.get_mut(path) {
            Some(slot) if slot.node.is_dir() => {
                slot.opaque = true;
                state.took_from_base = true;
            }
            Some(_) => {}
            None => {
                if state.slots.get(&path.parent().unwrap_or_default()).is_none_or(|slot| slot.node.is_dir()) {
                    state.whiteouts.insert(path.clone());
                }
            }
        }
        Ok(())
    }

    /// Hides all that the base has in a directory of an archive's layer.
    pub(in crate::layer) fn hide_contents(&self, path: &TreePath) -> Result<(), LayerError> {
        let mut state = self.state();
        state.took_from_base = true;
        if path.is_root() {
            for child in &self.base.trees.load(&self.base.root)?.children {
                let path = TreePath::root().child(&child.name);
                match state.slots.get_mut(&path) {
                    Some(slot) => slot.opaque = slot.node.is_dir(),
                    None => drop(state.whiteouts.insert(path)),
                }
            }
            return Ok(());
        }
        if let Some(slot) = state.slots.get_mut(path) {
            slot.opaque = slot.node.is_dir();
        }
        Ok(())
    }

    /// Takes out of the layer what it has itself at and below `path`; what the base has there stays in sight.
    pub(in crate::layer) fn leave_out(&self, path: &TreePath) -> Result<(), LayerError> {
        self.discard(&mut self.state(), path)
    }

    /// Completes directory and description.
    pub(super) fn settle(self, window: RunWindow) -> Result<CommittedLayer, LayerError> {
        let thin = self.settle_thin()?;
        let mut state = std::mem::take(&mut *self.state());
        self.finish_dirs(&mut state)?;
        let items = self.items(state, self.backing.as_ref().filter(|_| thin))?;
        let settle =
            Settle { root: self.root.as_fd(), base: &self.base, window, stubs: &[], form: self.form };
        let layer = settle.run(items)?;
        Ok(CommittedLayer { backing: self.backing.filter(|_| thin).map(|backing| backing.id), ..layer })
    }

    /// Gives the directories their attributes, the innermost first: each change in one alters the time of its own.
    fn finish_dirs(&self, state: &mut State) -> Result<(), LayerError> {
        let own_dirs = |slot: &Slot| slot.own && slot.node.is_dir();
        for (path, slot) in state.slots.iter_mut().rev().filter(|(_, slot)| own_dirs(slot)) {
            let Node { mode, uid, gid, .. } = slot.node;
            let xattrs = std::mem::take(&mut slot.node.xattrs);
            let meta = Meta { mode, uid, gid, mtime: slot.mtime, xattrs };
            slot.node.xattrs = disk::open_dir(self.root.as_fd(), path.as_bytes())
                .and_then(|dir| self.set_new(dir.as_fd(), &meta))
                .map_err(|e| io_error("set the attributes of", path, e))?;
        }
        Ok(())
    }

    /// All paths of the layer with what the base has there, in walk order.
    fn items(&self, mut state: State, backing: Option<&Backing>) -> Result<Vec<Item>, LayerError> {
        for path in self.hidden(&state)? {
            state.whiteouts.insert(path);
        }
        let mut all: BTreeMap<TreePath, Option<Slot>> =
            state.slots.into_iter().map(|(path, slot)| (path, Some(slot))).collect();
        for path in state.whiteouts {
            all.entry(path).or_insert(None);
        }
        let mut items: Vec<Item> = Vec::with_capacity(all.len());
        let mut dirs: HashMap<TreePath, usize> = HashMap::new();
        for (path, slot) in all {
            let parent = path.parent().and_then(|parent| dirs.get(&parent).copied());
            // Most of a copy goes where nothing was: then there is nothing to look up.
            let lower = match parent.map(|i| &items[i].lower) {
                Some(None) => None,
                _ => self.base_node(&path)?,
            };
            if slot.as_ref().is_some_and(|slot| slot.node.is_dir()) {
                dirs.insert(path.clone(), items.len());
            }
            let own = slot.as_ref().is_some_and(|slot| slot.own);
            let over = own && backing.is_some_and(|backing| backing.has(&path));
            items.push(item(path, parent, slot, lower, over));
        }
        Ok(items)
    }

    /// What opaque directories hide, name by name.
    pub(super) fn hidden(&self, state: &State) -> Result<Vec<TreePath>, LayerError> {
        let mut hidden = Vec::new();
        for (path, _) in state.slots.iter().filter(|(_, slot)| slot.opaque) {
            if let Some(contents) = self.base.trees.child_at(&self.base.root, path)?.and_then(|c| c.contents)
            {
                self.hide_names(state, path, &contents.id, &mut hidden)?;
            }
        }
        Ok(hidden)
    }

    fn hide_names(
        &self,
        state: &State,
        dir: &TreePath,
        below: &NodeId,
        hidden: &mut Vec<TreePath>,
    ) -> Result<(), LayerError> {
        for child in &self.base.trees.load(below)?.children {
            let path = dir.child(&child.name);
            match (state.slots.get(&path), child.contents) {
                (None, _) => hidden.push(path),
                (Some(slot), Some(contents)) if slot.node.is_dir() => {
                    self.hide_names(state, &path, &contents.id, hidden)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn item(path: TreePath, parent: Option<usize>, slot: Option<Slot>, lower: Option<Node>, over: bool) -> Item {
    let Some(Slot { node, mtime, inode, time, own, .. }) = slot else {
        let (change, time) = (Change::Whiteout, Time::Own);
        return Item { path, parent, change, lower, place: Place::Missing, time, allocated: 0, inode: None };
    };
    let place = match own {
        true if over => Place::Over,
        true => Place::Own,
        false => Place::Backing,
    };
    let allocated = match node.kind {
        _ if !own => 0,
        Kind::File { size, .. } => size.next_multiple_of(BLOCK),
        Kind::Dir => BLOCK,
        _ => 0,
    };
    Item { path, parent, change: Change::Put { node, mtime }, lower, place, time, allocated, inode }
}
