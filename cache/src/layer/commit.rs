//! From an overlay upper directory to a layer in normal form.

mod scan;

use std::os::fd::AsFd;
use std::path::Path;

use super::base::Base;
use super::entry::CommittedLayer;
use super::error::LayerError;
use super::normal::{Form, Settle, io_error};
use super::window::RunWindow;
use crate::tree::TreePath;
use crate::view::disk;

/// Under which names overlayfs keeps its marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayMarks {
    /// `trusted.overlay.*`: mounts of root.
    Trusted,
    /// `user.overlay.*`: mounts with `userxattr`, in a user namespace.
    User,
}

/// What [`commit`] needs.
#[derive(Debug)]
pub struct CommitRequest<'a> {
    /// The upper directory of an overlay that is no longer mounted; changed in place.
    pub upper: &'a Path,
    /// What the overlay's lower directories were.
    pub base: &'a Base,
    /// When the step ran.
    pub window: RunWindow,
    /// Mount points and their parents that were made for the step: removed where they are still empty.
    pub stubs: &'a [TreePath],
    /// Which marks are the kernel's; the others are a program's, mean nothing, and are removed all the same.
    pub marks: OverlayMarks,
}

/// Brings an upper directory into normal form, hashes it and extends the parent's tree.
///
/// Blocking; uses a few threads. Never follows symbolic links.
///
/// # Errors
/// When the directory or the parent cannot be read or changed. The directory is then useless.
pub fn commit(request: &CommitRequest<'_>) -> Result<CommittedLayer, LayerError> {
    let root =
        disk::open_root(request.upper).map_err(|source| io_error("open", &TreePath::root(), source))?;
    let items = scan::scan(root.as_fd(), request.base, request.marks)?;
    let settle = Settle {
        root: root.as_fd(),
        base: request.base,
        window: request.window,
        stubs: request.stubs,
        form: Form::OverParent,
    };
    settle.run(items)
}
