//! From a merged view to a plain directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, Gid, Mode, Uid, XattrFlags};

use crate::layer::builder::{Meta, set_xattrs};
use crate::layer::error::LayerError;
use crate::layer::normal::{io_error, times};
use crate::tree::{Follow, TreePath, Xattrs};
use crate::view::{FileType, Located, MergedView, Stat, ViewError};

/// Copies what `selector` names (a directory's contents, with its own attributes) into the existing directory `dir`,
/// sharing blocks where the file system can. A missing selector copies nothing.
///
/// Each name becomes a file of its own: hard links end here, as they do when overlayfs copies a file up.
///
/// # Errors
/// When the layers cannot be read or the directory not be written.
pub fn copy_out(view: &MergedView, selector: &[u8], dir: &Path) -> Result<(), LayerError> {
    let top = match view.resolve(selector, Follow::Last) {
        Ok(Some(found)) => found,
        Ok(None) | Err(ViewError::NotFound(_)) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let mut dirs = vec![(top.clone(), dir.to_owned())];
    view.walk::<LayerError>(&top.path, &mut |found| {
        let below = found.path.strip_prefix(&top.path).unwrap_or_default();
        let target = dir.join(below.as_path());
        if found.stat.file_type == FileType::Dir {
            fs_err::create_dir(&target).map_err(|e| io_error("copy", &found.path, e))?;
            // What is made in it changes its time.
            dirs.push((found.clone(), target));
            return Ok(true);
        }
        make(view, found, &target)?;
        attributes(view, found, &target)?;
        Ok(true)
    })?;
    dirs.iter().rev().try_for_each(|(found, target)| attributes(view, found, target))
}

fn make(view: &MergedView, found: &Located, target: &PathBuf) -> Result<(), LayerError> {
    let io = |source| io_error("copy", &found.path, source);
    match found.stat.file_type {
        FileType::File => {
            let mut source = view.open_file(found)?;
            let mut out = File::create_new(target).map_err(io)?;
            // Within a file system the kernel copies, or shares the blocks (copy_file_range(2)).
            io::copy(&mut source, &mut out).map(drop).map_err(io)
        }
        FileType::Symlink => {
            let link = view.read_link(found)?;
            std::os::unix::fs::symlink(OsStr::from_bytes(&link), target).map_err(io)
        }
        other => {
            let kind = match other {
                FileType::CharDevice => fs::FileType::CharacterDevice,
                FileType::BlockDevice => fs::FileType::BlockDevice,
                FileType::Socket => fs::FileType::Socket,
                _ => fs::FileType::Fifo,
            };
            let (major, minor) = found.stat.rdev;
            fs::mknodat(CWD, target, kind, Mode::RUSR, fs::makedev(major, minor)).map_err(|e| io(e.into()))
        }
    }
}

fn attributes(view: &MergedView, found: &Located, target: &Path) -> Result<(), LayerError> {
    let meta = meta(&found.stat, view.xattrs(found)?);
    set_attributes(target, found.stat.file_type == FileType::Symlink, &meta)
        .map_err(|e| io_error("copy the attributes of", &found.path, e))
}

/// What an object on disk has besides its content.
pub(super) fn meta(stat: &Stat, xattrs: Xattrs) -> Meta {
    Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: stat.mtime, xattrs }
}

/// Gives an object below a directory of the daemon's own these attributes; a symbolic link keeps its mode.
pub(crate) fn set_attributes(target: &Path, is_link: bool, meta: &Meta) -> io::Result<()> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    // In this order: a change of owner clears setuid bits and capabilities, and all but the last change the time.
    fs::chownat(CWD, target, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)), nofollow)?;
    if !is_link {
        fs::chmodat(CWD, target, Mode::from_raw_mode(meta.mode), AtFlags::empty())?;
    }
    set_xattrs(&meta.xattrs, |name, value| fs::lsetxattr(target, name, value, XattrFlags::empty()))?;
    Ok(fs::utimensat(CWD, target, &times(meta.mtime), nofollow)?)
}

/// The path of something below `dir`.
pub(crate) fn below(dir: &Path, path: &TreePath) -> PathBuf {
    dir.join(path.as_path())
}
