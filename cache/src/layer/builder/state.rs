//! What a layer under construction holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::layer::normal::Time;
use crate::tree::{Node, TreePath};

/// Directory descriptors kept open. Most files of a copy go to the directory of the one before.
const OPEN_DIRS: usize = 64;

/// An object of the layer.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// Without a time that counts and without a link group: both are decided at the end.
    pub(super) node: Node,
    /// Real modification time in nanoseconds since 1970.
    pub(super) mtime: i64,
    /// The same for all names of one inode.
    pub(super) inode: Option<u64>,
    /// Whose time it has.
    pub(super) time: Time,
    /// Whether it is in the layer's own directory. Else the backing has it; a directory may also be made as soon as
    /// something is put into it.
    pub(super) own: bool,
    /// A directory that took the place of a removed one: what the base has in it is hidden.
    pub(super) opaque: bool,
}

/// The layer so far.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) slots: BTreeMap<TreePath, Slot>,
    /// Paths of the base that were removed and not made again.
    pub(super) whiteouts: BTreeSet<TreePath>,
    /// How many inodes with several names there are.
    pub(super) inodes: u64,
    /// Whether anything was taken from the base that its parent decides.
    pub(super) took_from_base: bool,
    open: HashMap<TreePath, Arc<OwnedFd>>,
}

impl State {
    /// The slots below a directory, itself included, in walk order.
    pub(super) fn subtree(&self, path: &TreePath) -> Vec<TreePath> {
        self.slots
            .range(path.clone()..)
            .take_while(|(p, _)| p.starts_with(path))
            .map(|(p, _)| p.clone())
            .collect()
    }

    /// Whether the base shows through at `path`, going by what is above it (not by what is at it).
    pub(super) fn shows_through(&self, path: &TreePath) -> bool {
        let mut at = path.parent();
        while let Some(dir) = at {
            if dir.is_root() {
                break;
            }
            if self.whiteouts.contains(&dir) {
                return false;
            }
            if self.slots.get(&dir).is_some_and(|slot| slot.opaque || !slot.node.is_dir()) {
                return false;
            }
            at = dir.parent();
        }
        true
    }

    /// An open directory, if it is at hand.
    pub(super) fn opened(&self, path: &TreePath) -> Option<Arc<OwnedFd>> {
        self.open.get(path).cloned()
    }

    /// Keeps an open directory at hand.
    pub(super) fn keep_open(&mut self, path: &TreePath, dir: OwnedFd) -> Arc<OwnedFd> {
        if self.open.len() >= OPEN_DIRS {
            self.open.clear();
        }
        let dir = Arc::new(dir);
        self.open.insert(path.clone(), dir.clone());
        dir
    }

    /// Forgets the slots of a subtree and its open directories; gives the forgotten, in walk order.
    pub(super) fn forget(&mut self, path: &TreePath) -> Vec<(TreePath, Slot)> {
        self.open.retain(|dir, _| !dir.starts_with(path));
        self.whiteouts.retain(|p| !p.starts_with(path));
        let paths = self.subtree(path);
        paths.into_iter().filter_map(|p| self.slots.remove_entry(&p)).collect()
    }
}
