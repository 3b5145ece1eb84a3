//! Thin layers: what a layer has in common with an earlier one is not stored again.
//!
//! A layer is *thin* when its directory holds only what differs from another layer, its *backing*: objects that are new
//! or other, directories on the way to them, and whiteouts for what the backing has beyond. The two directories, the
//! backing's below, show what one directory with everything would. Only the storage is thin: entries and id are those
//! of the whole layer.
//!
//! That holds on every parent with the right content because of three rules: a name of the backing that the layer lacks,
//! and a non-directory of it that the layer has a directory for, are names that the parent does not have; and what a layer
//! leaves out because the parent has the same stays in the directory where the backing has something else. A backing is
//! never thin itself and removes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use solver::LayerId;

use super::builder::Meta;
use super::entry::{Change, Entries, LayerEntry};
use crate::tree::{Kind, Node, TreePath, Xattrs};

/// What a file costs beside its bytes, in bytes: the time to make one is that of writing so many.
const OBJECT_COST: u64 = 16 << 10;

/// Below this nothing is gained that would be worth a directory more in each mount.
const WORTHWHILE: u64 = 8 << 20;

/// A layer that a new one may be thin over.
#[derive(Debug, Clone)]
pub struct Backing {
    /// Its id.
    pub id: LayerId,
    /// Its directory.
    pub dir: PathBuf,
    entries: Arc<Entries>,
    cost: u64,
}

impl Backing {
    /// `None` for a layer that cannot be a backing, or is too small to be worth it.
    pub fn new(id: LayerId, dir: PathBuf, entries: Entries) -> Option<Self> {
        let cost = entries.iter().map(cost).sum();
        let removes = entries.iter().any(|entry| entry.change == Change::Whiteout);
        (cost >= WORTHWHILE && !removes).then(|| Self { id, dir, entries: Arc::new(entries), cost })
    }

    /// Whether a layer of this size can be worth it.
    pub fn is_worthwhile(bytes: u64, entries: u64) -> bool {
        bytes.saturating_add(entries.saturating_mul(OBJECT_COST)) >= WORTHWHILE
    }

    /// Whether so much in common is worth being thin: what the backing has beyond is kept for nothing.
    pub(super) fn is_worth(&self, lent: u64) -> bool {
        lent >= WORTHWHILE && lent >= self.cost / 4 * 3
    }

    /// The entries, in walk order.
    pub(super) fn entries(&self) -> &[LayerEntry] {
        self.entries.as_slice()
    }

    /// Whether it has anything at `path`.
    pub(super) fn has(&self, path: &TreePath) -> bool {
        self.entries.get(path).is_some()
    }

    /// The attributes of an object that is the same in the backing; hard links are never shared.
    pub(super) fn lends(&self, path: &TreePath, kind: &Kind, meta: &Meta) -> Option<&Xattrs> {
        let Change::Put { node, mtime } = &self.entries.get(path)?.change else { return None };
        let same = node.kind == *kind
            && (node.mode, node.uid, node.gid, *mtime)
                == (meta.mode & 0o7777, meta.uid, meta.gid, meta.mtime)
            && node.link_group.is_none()
            && same_xattrs(&node.xattrs, &meta.xattrs);
        same.then_some(&node.xattrs)
    }
}

/// Whether two sets of attributes are the same, in whatever order.
fn same_xattrs(sorted: &Xattrs, other: &Xattrs) -> bool {
    sorted.len() == other.len() && other.iter().all(|attr| sorted.contains(attr))
}

/// What it costs to have a layer's object once more.
fn cost(entry: &LayerEntry) -> u64 {
    match &entry.change {
        Change::Put { node, .. } => cost_of(node),
        Change::Whiteout => 0,
    }
}

/// What it costs to have an object once more; directories are free.
pub(super) fn cost_of(node: &Node) -> u64 {
    match node.kind {
        Kind::File { size, .. } => size.saturating_add(OBJECT_COST),
        Kind::Dir => 0,
        _ => OBJECT_COST,
    }
}
