//! Making a layer file by file, without a mount.
//!
//! Parts: `state` and `look` (what the layer holds so far and what one sees through it), `write` and `contents` (putting
//! objects and bytes on disk), `thin` (leaving on disk what an earlier layer has), `difference`, `finish`. The methods that callers use are here, and thin.

mod contents;
mod difference;
mod finish;
mod look;
mod state;
mod thin;
mod write;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs;

pub use self::difference::difference;
use self::state::State;
pub(super) use self::write::set_xattrs;
use super::backing::Backing;
use super::base::Base;
use super::entry::CommittedLayer;
use super::error::LayerError;
use super::normal::{Form, io_error};
use super::window::RunWindow;
use crate::tree::{FileDigest, Kind, TreePath, Xattrs};
use crate::view::disk;

/// Buffer for streams that do not say how long they are.
const UNKNOWN_SIZE: u64 = 32 << 10;

/// Owner, permissions, time and attributes of what is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in nanoseconds since 1970.
    pub mtime: i64,
    /// Extended attributes; overlayfs's own and those that the file system refuses are left out.
    pub xattrs: Xattrs,
}

/// A special file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A named pipe.
    Fifo,
    /// A character device, not 0:0 (that would be a whiteout).
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device, not 0:0 either.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// A new layer over a [`Base`], used like a file system; all paths are exact (resolve links with [`Self::resolve`]).
///
/// Parents are copied up from the base with the base's attributes and times. What is made replaces any
/// non-directory of that path; a directory in the way is an error ([`Self::remove`] it first). All methods can be
/// called from several threads, for different paths.
#[derive(Debug)]
pub struct LayerBuilder {
    base: Base,
    backing: Option<Backing>,
    dir: PathBuf,
    root: OwnedFd,
    form: Form,
    /// The process's ids, which new files have: those that are to belong to them need no chown.
    own_ids: (u32, u32),
    state: Mutex<State>,
}

impl LayerBuilder {
    /// Starts a layer in the new directory `dir`, which must not exist; its parent must.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn create(dir: &Path, base: Base) -> Result<Self, LayerError> {
        Self::with_form(dir, base, Form::OverParent)
    }

    /// With [`Form::AsGiven`] the base is not looked at but for what an archive leaves out: directories replace
    /// whatever is below, and missing parents are made.
    pub(super) fn with_form(dir: &Path, base: Base, form: Form) -> Result<Self, LayerError> {
        let io = |source| io_error("create", &TreePath::root(), source);
        fs::mkdir(dir, fs::Mode::from_raw_mode(0o700)).map_err(|e| io(e.into()))?;
        let root = disk::open_root(dir).map_err(io)?;
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        // In a setgid directory it was given that one's group and bit, and would hand both on.
        fs::fchown(&root, Some(uid), Some(gid)).map_err(|e| io(e.into()))?;
        fs::fchmod(&root, fs::Mode::RWXU).map_err(|e| io(e.into()))?;
        let own_ids = (uid.as_raw(), gid.as_raw());
        Ok(Self { base, backing: None, dir: dir.to_path_buf(), root, form, own_ids, state: Mutex::default() })
    }

    /// What the layer is made on.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The layer's directory, as it was given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a directory, or gives an existing one these attributes.
    ///
    /// # Errors
    /// [`LayerError::NotADirectory`] when something else is there, [`LayerError::NotFound`] without a parent.
    pub fn mkdir(&self, path: &TreePath, meta: &Meta) -> Result<(), LayerError> {
        self.make_dir(path, meta)
    }

    /// Writes a file from memory.
    ///
    /// # Errors
    /// [`LayerError::IsADirectory`], [`LayerError::NotFound`] without a parent, or when it cannot be written.
    pub fn write_file(&self, path: &TreePath, meta: &Meta, data: &[u8]) -> Result<FileDigest, LayerError> {
        self.make_file(path, meta, |file| contents::store(file, data))
    }

    /// Writes a file from a stream.
    ///
    /// # Errors
    /// As [`Self::write_file`], and when the stream fails.
    pub fn write_from(
        &self,
        path: &TreePath,
        meta: &Meta,
        data: &mut dyn Read,
    ) -> Result<FileDigest, LayerError> {
        self.write_sized(path, meta, data, UNKNOWN_SIZE)
    }

    /// As [`Self::write_from`], with the size that is expected.
    pub(super) fn write_sized(
        &self,
        path: &TreePath,
        meta: &Meta,
        data: &mut dyn Read,
        size: u64,
    ) -> Result<FileDigest, LayerError> {
        self.make_file(path, meta, |file| contents::pour(file, data, size))
    }

    /// Copies an open regular file from its start, sharing its blocks where the file system can; hashed as copied.
    ///
    /// # Errors
    /// As [`Self::write_from`].
    pub fn copy_file(&self, path: &TreePath, meta: &Meta, source: &File) -> Result<FileDigest, LayerError> {
        self.make_file(path, meta, |file| contents::copy(file, source))
    }

    /// Makes a symbolic link; `meta.mode` is ignored.
    ///
    /// # Errors
    /// As [`Self::write_file`].
    pub fn symlink(&self, path: &TreePath, target: &[u8], meta: &Meta) -> Result<(), LayerError> {
        self.make_other(path, Kind::Symlink { target: target.into() }, meta)
    }

    /// Makes a device or a pipe.
    ///
    /// # Errors
    /// As [`Self::write_file`].
    pub fn special(&self, path: &TreePath, special: Special, meta: &Meta) -> Result<(), LayerError> {
        let kind = match special {
            Special::Fifo => Kind::Fifo,
            Special::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            Special::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
        };
        self.make_other(path, kind, meta)
    }

    /// Makes anything that is neither file nor directory, sockets too.
    pub(super) fn other(&self, path: &TreePath, kind: Kind, meta: &Meta) -> Result<(), LayerError> {
        self.make_other(path, kind, meta)
    }

    /// Makes `path` another name of `existing`. A file of the base is copied up first.
    ///
    /// # Errors
    /// As [`Self::write_file`]; [`LayerError::NotFound`] and [`LayerError::IsADirectory`] for `existing`.
    pub fn hardlink(&self, existing: &TreePath, path: &TreePath) -> Result<(), LayerError> {
        self.make_link(existing, path)
    }

    /// Changes the attributes of an existing object, which is copied up if need be.
    ///
    /// # Errors
    /// [`LayerError::NotFound`], or when it cannot be changed.
    pub fn set_meta(&self, path: &TreePath, meta: &Meta) -> Result<(), LayerError> {
        self.change_meta(path, meta)
    }

    /// Removes an object with all below it, of the layer and (by a whiteout) of the base; false when there was none.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, path: &TreePath) -> Result<bool, LayerError> {
        self.remove_all(path)
    }

    /// Ends the layer: directory attributes, whiteouts, entries, tree.
    ///
    /// # Errors
    /// When the directory cannot be completed or the tree not be written.
    pub fn finish(self, window: RunWindow) -> Result<CommittedLayer, LayerError> {
        self.settle(window)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
