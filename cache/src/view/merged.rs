//! The merged view.

use std::fs::File;
use std::path::PathBuf;

use super::error::ViewError;
use crate::tree::{Follow, TreePath, Xattrs};

/// The type of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Attributes of an object on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Type.
    pub file_type: FileType,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes, of a file or a link's target.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime: i64,
    /// Device numbers (major, minor) of a device.
    pub rdev: (u32, u32),
    /// Inode number, the same for the names of a hard-link group in one layer.
    pub ino: u64,
    /// Number of names of the inode.
    pub nlink: u32,
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its real path: no component but the last is a symbolic link.
    pub path: TreePath,
    /// Index of the topmost layer that has it, 0 at the bottom.
    pub layer: usize,
    /// Its attributes there.
    pub stat: Stat,
}

/// A name in a merged directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirItem {
    /// One component.
    pub name: Box<[u8]>,
    /// Its type.
    pub file_type: FileType,
    /// Index of the topmost layer that has it.
    pub layer: usize,
}

/// A chain of layer directories in normal form, merged. The directories must not change while it lives.
#[derive(Debug)]
pub struct MergedView {
    layers: Vec<PathBuf>,
}

impl MergedView {
    /// Opens a chain of layer directories (`…/fs`), bottom first.
    ///
    /// # Errors
    /// When one of them cannot be opened.
    pub fn open(layers: &[PathBuf]) -> Result<Self, ViewError> {
        todo!()
    }

    /// A view of nothing: an empty root.
    pub fn empty() -> Self {
        Self { layers: Vec::new() }
    }

    /// The object at exactly `path`, no symbolic link followed; `None` when there is none.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn get(&self, path: &TreePath) -> Result<Option<Located>, ViewError> {
        todo!()
    }

    /// Resolves `path` as `openat2(RESOLVE_IN_ROOT)` does; `None` when the last component does not exist.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] when a directory on the way is missing, [`ViewError::NotADirectory`],
    /// [`ViewError::TooManyLinks`], or when a directory cannot be read.
    pub fn resolve(&self, path: &[u8], follow: Follow) -> Result<Option<Located>, ViewError> {
        todo!()
    }

    /// The names in the directory at exactly `path`, sorted by bytes.
    ///
    /// # Errors
    /// [`ViewError::NotFound`], [`ViewError::NotADirectory`], or when it cannot be read.
    pub fn list(&self, path: &TreePath) -> Result<Vec<DirItem>, ViewError> {
        todo!()
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`ViewError::NotAFile`] for anything else, or when it cannot be opened.
    pub fn open_file(&self, file: &Located) -> Result<File, ViewError> {
        todo!()
    }

    /// What a symbolic link says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_link(&self, link: &Located) -> Result<Vec<u8>, ViewError> {
        todo!()
    }

    /// Extended attributes of an object, sorted by name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn xattrs(&self, object: &Located) -> Result<Xattrs, ViewError> {
        todo!()
    }

    /// Reads a small regular file such as `/etc/passwd`, links followed; `None` when it does not exist.
    ///
    /// # Errors
    /// [`ViewError::TooLarge`] above `limit` bytes, [`ViewError::NotAFile`], or as [`Self::resolve`].
    pub fn read_small(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>, ViewError> {
        todo!()
    }

    /// Calls `visit` for everything below the directory at `path`, in walk order, until it fails. What is below a
    /// directory for which it returns false is left out.
    ///
    /// # Errors
    /// As [`Self::list`], and what `visit` returns.
    pub fn walk<E: From<ViewError>>(
        &self,
        path: &TreePath,
        visit: &mut dyn FnMut(&Located) -> Result<bool, E>,
    ) -> Result<(), E> {
        todo!()
    }
}
