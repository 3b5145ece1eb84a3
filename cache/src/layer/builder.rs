//! Making a layer file by file, without a mount.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::base::Base;
use super::entry::CommittedLayer;
use super::error::LayerError;
use super::window::RunWindow;
use crate::tree::{FileDigest, Follow, Found, Node, TreeEntry, TreePath, Xattrs};

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
    /// Extended attributes; overlayfs's own are left out.
    pub xattrs: Xattrs,
}

/// A special file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A named pipe.
    Fifo,
    /// A character device, not 0:0.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
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
}

impl LayerBuilder {
    /// Starts a layer in the new directory `dir`, which must not exist; its parent must.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn create(dir: &Path, base: Base) -> Result<Self, LayerError> {
        todo!()
    }

    /// The object at exactly `path`, of the new layer or of the base.
    ///
    /// # Errors
    /// When the base's tree cannot be read.
    pub fn get(&self, path: &TreePath) -> Result<Option<Node>, LayerError> {
        todo!()
    }

    /// Resolves a path over layer and base together; as [`crate::tree::Trees::resolve`].
    ///
    /// # Errors
    /// As there.
    pub fn resolve(&self, path: &[u8], follow: Follow) -> Result<Found, LayerError> {
        todo!()
    }

    /// The names in a directory, of layer and base together, sorted by bytes.
    ///
    /// # Errors
    /// [`LayerError::NotFound`], [`LayerError::NotADirectory`], or when the base's tree cannot be read.
    pub fn list(&self, path: &TreePath) -> Result<Vec<TreeEntry>, LayerError> {
        todo!()
    }

    /// Opens a regular file of layer or base for reading (exact path).
    ///
    /// # Errors
    /// [`LayerError::NotFound`], or when it cannot be opened.
    pub fn open(&self, path: &TreePath) -> Result<File, LayerError> {
        todo!()
    }

    /// Makes a directory, or gives an existing one these attributes.
    ///
    /// # Errors
    /// [`LayerError::NotADirectory`] when something else is there, [`LayerError::NotFound`] without a parent.
    pub fn mkdir(&self, path: &TreePath, meta: &Meta) -> Result<(), LayerError> {
        todo!()
    }

    /// Writes a file from memory.
    ///
    /// # Errors
    /// [`LayerError::IsADirectory`], [`LayerError::NotFound`] without a parent, or when it cannot be written.
    pub fn write_file(&self, path: &TreePath, meta: &Meta, data: &[u8]) -> Result<FileDigest, LayerError> {
        todo!()
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
        todo!()
    }

    /// Copies an open regular file from its start, sharing its blocks where the file system can; hashed as copied.
    ///
    /// # Errors
    /// As [`Self::write_from`].
    pub fn copy_file(&self, path: &TreePath, meta: &Meta, source: &File) -> Result<FileDigest, LayerError> {
        todo!()
    }

    /// Makes a symbolic link; `meta.mode` is ignored.
    ///
    /// # Errors
    /// As [`Self::write_file`].
    pub fn symlink(&self, path: &TreePath, target: &[u8], meta: &Meta) -> Result<(), LayerError> {
        todo!()
    }

    /// Makes `path` another name of `existing`. A file of the base is copied up first.
    ///
    /// # Errors
    /// As [`Self::write_file`]; [`LayerError::NotFound`] and [`LayerError::IsADirectory`] for `existing`.
    pub fn hardlink(&self, existing: &TreePath, path: &TreePath) -> Result<(), LayerError> {
        todo!()
    }

    /// Makes a device or a pipe.
    ///
    /// # Errors
    /// As [`Self::write_file`].
    pub fn special(&self, path: &TreePath, special: Special, meta: &Meta) -> Result<(), LayerError> {
        todo!()
    }

    /// Changes the attributes of an existing object, which is copied up if need be.
    ///
    /// # Errors
    /// [`LayerError::NotFound`], or when it cannot be changed.
    pub fn set_meta(&self, path: &TreePath, meta: &Meta) -> Result<(), LayerError> {
        todo!()
    }

    /// Removes an object with all below it, of the layer and (by a whiteout) of the base; false when there was none.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, path: &TreePath) -> Result<bool, LayerError> {
        todo!()
    }

    /// Ends the layer: directory attributes, whiteouts, entries, tree.
    ///
    /// # Errors
    /// When the directory cannot be completed or the tree not be written.
    pub fn finish(self, window: RunWindow) -> Result<CommittedLayer, LayerError> {
        todo!()
    }
}
