//! Normal form: what is left out of a layer, what becomes explicit, and how the result is written down.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, Timespec, Timestamps};
use rustix::io::Errno;

use super::base::Base;
use super::entry::{Change, CommittedLayer, Entries, LayerEntry};
use super::error::LayerError;
use super::window::RunWindow;
use crate::tree::{Node, TreePath};
use crate::view::disk;

/// Prefixes of overlayfs's own attributes, for mounts of root and of a user namespace.
pub(super) const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// One path of a layer that is not yet in normal form.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: TreePath,
    /// Index of the parent directory's item; `None` below the root.
    pub(super) parent: Option<usize>,
    pub(super) change: Change,
    /// What the parent's tree has at this path.
    pub(super) lower: Option<Node>,
    pub(super) place: Place,
    pub(super) time: Time,
    /// Bytes allocated.
    pub(super) allocated: u64,
    /// The same for all names of one inode; `None` when there is but one.
    pub(super) inode: Option<u64>,
}

/// Where an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the layer's own directory.
    Own,
    /// There, where the layer that it is thin over has something as well: it stays even if it is left out, or that one's
    /// would show.
    Over,
    /// In the directory of the layer that it is thin over.
    Backing,
    /// Nowhere yet: a whiteout that is to be made.
    Missing,
}

/// Where the modification time of an object comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    /// The step that makes the layer, or what it copied from.
    Own,
    /// An object of the parent that was copied up with its time, of which the parent's tree counts this much.
    Inherited(Option<i64>),
}

/// How strict the normal form is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// What equals the parent is left out.
    OverParent,
    /// Nothing is left out: the layer came from elsewhere and has to mean the same on any parent.
    AsGiven,
}

/// A layer on its way to normal form.
#[derive(Debug)]
pub(super) struct Settle<'a> {
    /// The layer's directory.
    pub(super) root: BorrowedFd<'a>,
    pub(super) base: &'a Base,
    pub(super) window: RunWindow,
    /// Paths made for mounts.
    pub(super) stubs: &'a [TreePath],
    pub(super) form: Form,
}

/// Whether an attribute belongs to overlayfs.
pub(super) fn is_overlay_xattr(name: &[u8]) -> bool {
    OVERLAY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

impl Settle<'_> {
    /// Brings the directory into normal form and describes it. `items` are in walk order.
    pub(super) fn run(&self, mut items: Vec<Item>) -> Result<CommittedLayer, LayerError> {
        let equal = self.judge_times(&mut items)?;
        let alive = self.write(&items, &equal)?;
        self.reset_root().map_err(|source| io_error("reset", &TreePath::root(), source))?;
        let mut kept = Vec::with_capacity(items.len());
        let mut disk_bytes = 0;
        let mut alive = alive.into_iter();
        items.retain(|_| alive.next().unwrap_or(false));
        group_links(&mut items);
        for item in items {
            disk_bytes += item.allocated;
            kept.push(LayerEntry { path: item.path, change: item.change });
        }
        let entries = Entries::from_sorted(kept);
        let root = self.base.trees.apply(self.base.root, &entries)?;
        Ok(CommittedLayer { id: entries.layer_id(), entries, root, disk_bytes, backing: None })
    }

    /// Decides for each object whether its time counts, and whether it equals what is below it.
    fn judge_times(&self, items: &mut [Item]) -> Result<Vec<bool>, LayerError> {
        let mut equal = vec![false; items.len()];
        let mut inherited = HashMap::new();
        for (item, equal) in items.iter_mut().zip(&mut equal) {
            *equal = self.judge_time(item)?;
            if let (Some(inode), Time::Inherited(counts)) = (item.inode, item.time) {
                inherited.insert(inode, counts);
            }
        }
        // A new name for an old file has the old file's time.
        for item in items {
            let counts = item.inode.and_then(|inode| inherited.get(&inode));
            if let (Some(counts), Change::Put { node, .. }) = (counts, &mut item.change) {
                node.mtime = *counts;
            }
        }
        Ok(equal)
    }

    /// The same for one object; says whether it equals what is below it.
    fn judge_time(&self, item: &mut Item) -> Result<bool, LayerError> {
        let Change::Put { node, mtime } = &mut item.change else { return Ok(false) };
        let inside = self.window.contains(*mtime);
        let same = item.lower.as_ref().is_some_and(|lower| same_attributes(node, lower));
        if let (Time::Own, Some(lower), Form::OverParent) = (item.time, &item.lower, self.form)
            && (same || !inside)
            && self.base.view.get(&item.path)?.is_some_and(|below| below.stat.mtime == *mtime)
        {
            // Copied up with its time: whether that counts was decided when it was made.
            item.time = Time::Inherited(lower.mtime);
        }
        node.mtime = match item.time {
            Time::Inherited(counts) => counts,
            Time::Own => (!inside).then_some(*mtime),
        };
        // Entries come and go in a directory that is otherwise left alone (`/tmp`): its time is no change.
        Ok(same && (item.time != Time::Own || (inside && node.is_dir())))
    }

    /// Removes what is left out and makes the missing whiteouts, bottom up; says which items stay.
    fn write(&self, items: &[Item], equal: &[bool]) -> Result<Vec<bool>, LayerError> {
        let mut alive = vec![true; items.len()];
        let mut children = vec![0u32; items.len()];
        let mut touched = vec![false; items.len()];
        for (i, item) in items.iter().enumerate().rev() {
            let drop = self.form == Form::OverParent
                && match &item.change {
                    Change::Whiteout => item.lower.is_none(),
                    Change::Put { node, .. } => {
                        children[i] == 0 && (equal[i] || self.is_empty_stub(item, node))
                    }
                };
            let changed = match (drop, item.place) {
                (true, Place::Own) => {
                    self.remove(item).map_err(|source| io_error("remove", &item.path, source))?;
                    true
                }
                (false, Place::Missing) => {
                    make_whiteout(self.root, &item.path)
                        .map_err(|source| io_error("make a whiteout for", &item.path, source))?;
                    true
                }
                _ => false,
            };
            alive[i] = !drop;
            if let Some(parent) = item.parent {
                children[parent] += u32::from(!drop);
                touched[parent] |= changed;
            }
            if let (true, false, Change::Put { mtime, .. }) = (touched[i], drop, &item.change) {
                self.restore_time(&item.path, *mtime)
                    .map_err(|source| io_error("set the time of", &item.path, source))?;
            }
        }
        Ok(alive)
    }

    /// Whether it was made only to be mounted over and is still as empty as it was.
    fn is_empty_stub(&self, item: &Item, node: &Node) -> bool {
        let empty = match node.kind {
            crate::tree::Kind::File { size, .. } => size == 0 && item.inode.is_none(),
            crate::tree::Kind::Dir => true,
            _ => false,
        };
        empty && item.lower.is_none() && self.stubs.contains(&item.path)
    }

    fn remove(&self, item: &Item) -> io::Result<()> {
        let is_dir = matches!(&item.change, Change::Put { node, .. } if node.is_dir());
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let parent = parent_of(self.root, &item.path)?;
        Ok(fs::unlinkat(parent, item.path.name(), flags)?)
    }

    fn restore_time(&self, path: &TreePath, mtime: i64) -> io::Result<()> {
        Ok(fs::futimens(disk::open_dir(self.root, path.as_bytes())?, &times(mtime))?)
    }

    /// The root directory of a layer carries no information: always 0755 of root, with time 0.
    fn reset_root(&self) -> io::Result<()> {
        let root = disk::open_dir(self.root, b"")?;
        for (name, _) in disk::xattrs_of(&root)? {
            fs::fremovexattr(&root, &*name)?;
        }
        let stat = disk::fstat(&root)?;
        if (stat.uid, stat.gid) != (0, 0) && rustix::process::geteuid().is_root() {
            fs::fchown(root.as_fd(), Some(fs::Uid::ROOT), Some(fs::Gid::ROOT))?;
        }
        fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
        Ok(fs::futimens(&root, &times(0))?)
    }
}

/// Marks a name below `root` as removed.
pub(super) fn make_whiteout(root: BorrowedFd<'_>, path: &TreePath) -> io::Result<()> {
    let parent = parent_of(root, path)?;
    let make = |kind| fs::mknodat(&parent, path.name(), kind, Mode::empty(), fs::makedev(0, 0));
    match make(fs::FileType::CharacterDevice) {
        // An overlay takes this as an attack on its own layers.
        Err(Errno::PERM) => Ok(make(fs::FileType::BlockDevice)?),
        other => Ok(other?),
    }
}

fn parent_of(root: BorrowedFd<'_>, path: &TreePath) -> io::Result<OwnedFd> {
    disk::open_dir(root, path.parent().unwrap_or_default().as_bytes())
}

/// Whether two objects are the same but for times and hard links.
fn same_attributes(a: &Node, b: &Node) -> bool {
    a.kind == b.kind && (a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid) && a.xattrs == b.xattrs
}

/// Names the hard-link groups among what is left, each by its first path.
fn group_links(items: &mut [Item]) {
    let mut groups: HashMap<u64, Vec<usize>> = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        if let Some(inode) = item.inode {
            groups.entry(inode).or_default().push(i);
        }
    }
    for members in groups.into_values().filter(|members| members.len() > 1) {
        let label = items[members[0]].path.clone();
        for (nth, i) in members.into_iter().enumerate() {
            if nth > 0 {
                items[i].allocated = 0;
            }
            if let Change::Put { node, .. } = &mut items[i].change {
                node.link_group = Some(label.clone());
            }
        }
    }
}

/// Access and modification time, both `mtime`, in nanoseconds since 1970.
pub(super) fn times(mtime: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime.div_euclid(1_000_000_000), tv_nsec: mtime.rem_euclid(1_000_000_000) };
    Timestamps { last_access: time, last_modification: time }
}

/// An error of a system call on `path`.
pub(super) fn io_error(action: &'static str, path: &TreePath, source: io::Error) -> LayerError {
    LayerError::Io { action, path: path.clone(), source }
}
