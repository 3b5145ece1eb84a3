//! Putting objects on disk.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::contents::Written;
use super::state::{Slot, State};
use super::{LayerBuilder, Meta};
use crate::layer::error::LayerError;
use crate::layer::normal::{Form, Time, io_error, is_overlay_xattr, times};
use crate::tree::{FileDigest, Kind, Node, TreeError, TreePath, Xattrs};
use crate::view::disk;

impl LayerBuilder {
    /// Makes a regular file with what `fill` writes.
    pub(super) fn make_file(
        &self,
        path: &TreePath,
        meta: &Meta,
        fill: impl FnOnce(&mut File) -> io::Result<Written>,
    ) -> Result<FileDigest, LayerError> {
        let parent = self.way_to(path)?;
        let io = |source| io_error("write", path, source);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            fs::openat(&*parent, path.name(), flags, Mode::RUSR | Mode::WUSR).map_err(|e| io(e.into()))?;
        let mut file = File::from(fd);
        let (size, content) = fill(&mut file).map_err(io)?;
        let xattrs = self.set_new(file.as_fd(), meta).map_err(io)?;
        self.record(path, Kind::File { size, content }, meta, xattrs);
        Ok(content)
    }

    /// Makes a symbolic link, device or pipe.
    pub(super) fn make_other(&self, path: &TreePath, kind: Kind, meta: &Meta) -> Result<(), LayerError> {
        let meta = self.effective(&kind, meta);
        if self.borrow(path, &kind, &meta)? { Ok(()) } else { self.put_other(path, kind, &meta) }
    }

    /// As [`Self::make_other`], in the layer's own directory.
    pub(super) fn put_other(&self, path: &TreePath, kind: Kind, meta: &Meta) -> Result<(), LayerError> {
        let parent = self.way_to(path)?;
        make_node(parent.as_fd(), path.name(), &kind).map_err(|e| io_error("create", path, e.into()))?;
        let xattrs = self
            .set_named(parent.as_fd(), path.name(), &kind, meta)
            .map_err(|e| io_error("set the attributes of", path, e))?;
        self.record(path, kind, meta, xattrs);
        Ok(())
    }

    /// Makes a directory or takes the one that is there. Its attributes reach the disk at the end, because what is
    /// made in it would change its time.
    pub(super) fn make_dir(&self, path: &TreePath, meta: &Meta) -> Result<(), LayerError> {
        if path.is_root() {
            return Ok(());
        }
        let mut state = self.state();
        let made_again = state.whiteouts.contains(path);
        match self.in_way(&state, path)? {
            Some(node) if !node.is_dir() => {
                if self.form == Form::OverParent {
                    return Err(LayerError::NotADirectory(path.clone()));
                }
                self.discard(&mut state, path)?;
            }
            _ => {}
        }
        self.ensure_parent(&mut state, path)?;
        let (own, opaque) = match state.slots.get(path) {
            Some(slot) => (slot.own, slot.opaque),
            None => {
                // An archive's layer may come to lie on another base than this.
                let opaque = made_again
                    && (self.form == Form::AsGiven
                        || self.base_node(path)?.is_some_and(|node| node.is_dir()));
                (self.begin_dir(&mut state, path)?, opaque)
            }
        };
        state.took_from_base |= opaque;
        state.whiteouts.remove(path);
        let node = node_of(Kind::Dir, meta, clean(&meta.xattrs));
        state.slots.insert(
            path.clone(),
            Slot { node, mtime: meta.mtime, inode: None, time: Time::Own, own, opaque },
        );
        Ok(())
    }

    /// Makes another name of an object.
    pub(super) fn make_link(&self, existing: &TreePath, path: &TreePath) -> Result<(), LayerError> {
        self.copy_up(existing)?;
        let kind = self.get(existing)?.map(|node| node.kind);
        if kind == Some(Kind::Dir) {
            return Err(LayerError::IsADirectory(existing.clone()));
        }
        if existing == path {
            return Ok(());
        }
        let to = self.way_to(path)?;
        let mut state = self.state();
        let from = self.open_parent(&mut state, existing)?;
        fs::linkat(&*from, existing.name(), &*to, path.name(), AtFlags::empty())
            .map_err(|e| io_error("link", path, e.into()))?;
        let next = state.inodes;
        let slot = state.slots.get_mut(existing).ok_or_else(|| LayerError::NotFound(existing.clone()))?;
        let inode = *slot.inode.get_or_insert(next);
        let slot = slot.clone();
        state.inodes += u64::from(inode == next);
        state.slots.insert(path.clone(), slot);
        Ok(())
    }

    /// Changes the attributes of what is there.
    pub(super) fn change_meta(&self, path: &TreePath, meta: &Meta) -> Result<(), LayerError> {
        let node = self.get(path)?.ok_or_else(|| LayerError::NotFound(path.clone()))?;
        if node.is_dir() {
            return self.make_dir(path, meta);
        }
        self.copy_up(path)?;
        let mut state = self.state();
        let parent = self.open_parent(&mut state, path)?;
        let meta = self.effective(&node.kind, meta);
        let set = || match node.kind {
            Kind::File { .. } => {
                let file = disk::open_file(parent.as_fd(), path.name())?;
                for (name, _) in disk::xattrs_of(&file)? {
                    fs::fremovexattr(&file, &*name)?;
                }
                set_owner(file.as_fd(), &meta)?;
                set_rest(file.as_fd(), &meta)
            }
            _ => self.set_named(parent.as_fd(), path.name(), &node.kind, &meta),
        };
        let xattrs = set().map_err(|e| io_error("set the attributes of", path, e))?;
        let inode = state.slots.get(path).and_then(|slot| slot.inode);
        let changed = node_of(node.kind.clone(), &meta, xattrs);
        for (at, slot) in &mut state.slots {
            if at == path || (inode.is_some() && slot.inode == inode) {
                slot.node = changed.clone();
                slot.mtime = meta.mtime;
                slot.time = Time::Own;
            }
        }
        Ok(())
    }

    /// Removes a subtree from the layer and, where the base has something there, from sight.
    pub(super) fn remove_all(&self, path: &TreePath) -> Result<bool, LayerError> {
        let mut state = self.state();
        if self.look(&state, path)?.is_none() || path.is_root() {
            return Ok(false);
        }
        self.discard(&mut state, path)?;
        if state.shows_through(path) && self.base_node(path)?.is_some() {
            self.ensure_parent(&mut state, path)?;
            state.whiteouts.insert(path.clone());
        }
        Ok(true)
    }

    /// Copies an object of the base into the layer, unless it is there.
    fn copy_up(&self, path: &TreePath) -> Result<(), LayerError> {
        let not_found = || LayerError::NotFound(path.clone());
        let node = {
            let state = self.state();
            if state.slots.contains_key(path) {
                drop(state);
                return self.own(path);
            }
            self.look(&state, path)?.ok_or_else(not_found)?
        };
        let found = self.base.view.get(path)?.ok_or_else(not_found)?;
        let (mode, uid, gid) = (node.mode, node.uid, node.gid);
        let meta = Meta { mode, uid, gid, mtime: found.stat.mtime, xattrs: node.xattrs.clone() };
        self.state().took_from_base = true;
        match node.kind {
            Kind::File { .. } => {
                let source = self.base.view.open_file(&found)?;
                self.copy_file(path, &meta, &source)?;
            }
            Kind::Dir => self.make_dir(path, &meta)?,
            kind => self.make_other(path, kind, &meta)?,
        }
        if let Some(slot) = self.state().slots.get_mut(path) {
            slot.time = Time::Inherited(node.mtime);
        }
        Ok(())
    }

    /// Prepares for a non-directory in the layer's own directory. Gives its parent.
    fn way_to(&self, path: &TreePath) -> Result<Arc<OwnedFd>, LayerError> {
        let mut state = self.state();
        self.clear_way(&mut state, path)?;
        self.open_parent(&mut state, path)
    }

    /// Prepares for a non-directory at `path`: its parents are part of the layer, nothing is in the way.
    pub(super) fn clear_way(&self, state: &mut State, path: &TreePath) -> Result<(), LayerError> {
        if path.is_root() {
            return Err(LayerError::IsADirectory(path.clone()));
        }
        let in_way = self.in_way(state, path)?;
        if self.form == Form::OverParent && in_way.is_some_and(|node| node.is_dir()) {
            return Err(LayerError::IsADirectory(path.clone()));
        }
        self.ensure_parent(state, path)?;
        if state.slots.contains_key(path) {
            self.discard(state, path)?;
        }
        state.whiteouts.remove(path);
        Ok(())
    }

    /// What is at `path` that something new there would have to respect.
    fn in_way(&self, state: &State, path: &TreePath) -> Result<Option<Node>, LayerError> {
        match self.form {
            Form::OverParent => self.look(state, path),
            Form::AsGiven => Ok(state.slots.get(path).map(|slot| slot.node.clone())),
        }
    }

    /// Sees to it that the directory above `path` is part of the layer.
    pub(in crate::layer) fn ensure_parent_of(&self, path: &TreePath) -> Result<(), LayerError> {
        self.ensure_parent(&mut self.state(), path)
    }

    fn ensure_parent(&self, state: &mut State, path: &TreePath) -> Result<(), LayerError> {
        if path.is_too_long() {
            return Err(TreeError::PathTooLong(path.clone()).into());
        }
        let Some(parent) = path.parent().filter(|parent| !parent.is_root()) else { return Ok(()) };
        if let Some(slot) = state.slots.get(&parent) {
            return if slot.node.is_dir() { Ok(()) } else { Err(LayerError::NotADirectory(parent)) };
        }
        let (node, mtime, time) = match self.look(state, &parent)? {
            Some(node) if node.is_dir() => {
                let mtime = self.base.view.get(&parent)?.map_or(node.mtime.unwrap_or(0), |f| f.stat.mtime);
                let time = Time::Inherited(node.mtime);
                (node, mtime, time)
            }
            _ if self.form == Form::AsGiven => (Node::plain_dir(), 0, Time::Own),
            Some(_) => return Err(LayerError::NotADirectory(parent)),
            None => return Err(LayerError::NotFound(parent)),
        };
        state.took_from_base = true;
        self.ensure_parent(state, &parent)?;
        let own = self.begin_dir(state, &parent)?;
        let node = Node { mtime: None, link_group: None, ..node };
        let opaque = state.whiteouts.remove(&parent);
        state.slots.insert(parent, Slot { node, mtime, inode: None, time, own, opaque });
        Ok(())
    }

    /// Makes a directory on disk, unless the backing may have it: then it waits. Says whether it was made.
    fn begin_dir(&self, state: &mut State, path: &TreePath) -> Result<bool, LayerError> {
        if self.backing.is_some() {
            return Ok(false);
        }
        self.mkdir_on_disk(state, path).map(|()| true)
    }

    pub(super) fn mkdir_on_disk(&self, state: &mut State, path: &TreePath) -> Result<(), LayerError> {
        let parent = self.open_parent(state, path)?;
        fs::mkdirat(&*parent, path.name(), Mode::RWXU).map_err(|e| io_error("create", path, e.into()))
    }

    /// The directory above `path`, open.
    fn open_parent(&self, state: &mut State, path: &TreePath) -> Result<Arc<OwnedFd>, LayerError> {
        let parent = path.parent().unwrap_or_default();
        if let Some(dir) = state.opened(&parent) {
            return Ok(dir);
        }
        self.make_pending(state, &parent)?;
        let dir =
            disk::open_dir(self.root.as_fd(), parent.as_bytes()).map_err(|e| io_error("open", &parent, e))?;
        Ok(state.keep_open(&parent, dir))
    }

    /// Removes what the layer itself has at and below `path`.
    pub(in crate::layer::builder) fn discard(
        &self,
        state: &mut State,
        path: &TreePath,
    ) -> Result<(), LayerError> {
        for (path, slot) in state.forget(path).into_iter().rev().filter(|(_, slot)| slot.own) {
            let flags = if slot.node.is_dir() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            let parent = self.open_parent(state, &path)?;
            fs::unlinkat(&*parent, path.name(), flags).map_err(|e| io_error("remove", &path, e.into()))?;
        }
        // The descriptors of what was removed were opened again on the way.
        state.forget(path);
        Ok(())
    }

    fn record(&self, path: &TreePath, kind: Kind, meta: &Meta, xattrs: Xattrs) {
        let slot = Slot {
            node: node_of(kind, meta, xattrs),
            mtime: meta.mtime,
            inode: None,
            time: Time::Own,
            own: true,
            opaque: false,
        };
        self.state().slots.insert(path.clone(), slot);
    }

    /// The attributes that an object of this kind can have.
    fn effective(&self, kind: &Kind, meta: &Meta) -> Meta {
        let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { meta.mode };
        Meta { mode, ..meta.clone() }
    }

    /// Gives an open object that the builder made its attributes; gives those xattrs that the file system took.
    pub(super) fn set_new(&self, fd: BorrowedFd<'_>, meta: &Meta) -> io::Result<Xattrs> {
        if (meta.uid, meta.gid) != self.own_ids {
            set_owner(fd, meta)?;
        }
        set_rest(fd, meta)
    }

    /// Gives a link, device or pipe its attributes.
    fn set_named(&self, dir: BorrowedFd<'_>, name: &[u8], kind: &Kind, meta: &Meta) -> io::Result<Xattrs> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        fs::chownat(dir, name, Some(uid), Some(gid), nofollow)?;
        if !matches!(kind, Kind::Symlink { .. }) {
            // There is no fchmodat that does not follow links, but this is known to be none.
            fs::chmodat(dir, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())?;
        }
        let path = disk::proc_path(dir, name);
        let xattrs =
            set_xattrs(&meta.xattrs, |name, value| fs::lsetxattr(&*path, name, value, XattrFlags::empty()))?;
        fs::utimensat(dir, name, &times(meta.mtime), nofollow)?;
        Ok(xattrs)
    }
}

/// Comes first: a change of owner clears setuid bits and capabilities.
fn set_owner(fd: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
    Ok(fs::fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?)
}

/// The time comes last, which the others change.
fn set_rest(fd: BorrowedFd<'_>, meta: &Meta) -> io::Result<Xattrs> {
    fs::fchmod(fd, Mode::from_raw_mode(meta.mode))?;
    let set = |name: &[u8], value: &[u8]| fs::fsetxattr(fd, name, value, XattrFlags::empty());
    let xattrs = set_xattrs(&meta.xattrs, set)?;
    fs::futimens(fd, &times(meta.mtime))?;
    Ok(xattrs)
}

pub(super) fn node_of(kind: Kind, meta: &Meta, xattrs: Xattrs) -> Node {
    let (mode, uid, gid) = (meta.mode & 0o7777, meta.uid, meta.gid);
    Node { kind, mode, uid, gid, mtime: None, xattrs, link_group: None }
}

fn make_node(dir: BorrowedFd<'_>, name: &[u8], kind: &Kind) -> rustix::io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    match kind {
        Kind::Symlink { target } => fs::symlinkat(&**target, dir, name),
        Kind::CharDevice { major: 0, minor: 0 } | Kind::BlockDevice { major: 0, minor: 0 } => {
            Err(Errno::INVAL)
        }
        Kind::CharDevice { major, minor } => {
            fs::mknodat(dir, name, fs::FileType::CharacterDevice, mode, fs::makedev(*major, *minor))
        }
        Kind::BlockDevice { major, minor } => {
            fs::mknodat(dir, name, fs::FileType::BlockDevice, mode, fs::makedev(*major, *minor))
        }
        Kind::Socket => fs::mknodat(dir, name, fs::FileType::Socket, mode, 0),
        Kind::Fifo => fs::mknodat(dir, name, fs::FileType::Fifo, mode, 0),
        Kind::File { .. } | Kind::Dir => Err(Errno::INVAL),
    }
}

/// The attributes without overlayfs's own.
fn clean(xattrs: &Xattrs) -> Xattrs {
    xattrs.iter().filter(|(name, _)| !is_overlay_xattr(name)).cloned().collect()
}

/// Sets attributes, sorted; gives those that the file system and the privileges allow.
pub(in crate::layer) fn set_xattrs(
    xattrs: &Xattrs,
    set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
) -> io::Result<Xattrs> {
    let mut taken = clean(xattrs);
    taken.sort();
    let mut error = None;
    taken.retain(|(name, value)| match set(name, value) {
        Ok(()) => true,
        Err(Errno::OPNOTSUPP | Errno::PERM) => {
            tracing::debug!(name = %name.escape_ascii(), "attribute left out: the file system refuses it");
            false
        }
        Err(e) => {
            error.get_or_insert(e);
            false
        }
    });
    error.map_or(Ok(taken), |e| Err(e.into()))
}
