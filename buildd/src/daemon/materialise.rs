//! From a merged view to plain directories on disk.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::Path;

use cache::tree::{Follow, TreePath};
use cache::view::{FileType, Located, MergedView, ViewError};
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, mknodat, utimensat};

/// Files could not be written out.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyOutError {
    /// The layers cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The destination cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Copies what `selector` names (a directory's contents, with its own attributes) into the existing directory `dir`.
///
/// # Errors
/// When the layers cannot be read or the directory not be written. A missing selector copies nothing.
pub(super) fn copy_out(view: &MergedView, selector: &[u8], dir: &Path) -> Result<(), CopyOutError> {
    let found = match view.resolve(selector, Follow::Last) {
        Ok(Some(found)) => found,
        Ok(None) | Err(ViewError::NotFound(_)) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    copy_children(view, &found.path, dir)?;
    attributes(&found, dir)
}

fn copy_children(view: &MergedView, from: &TreePath, to: &Path) -> Result<(), CopyOutError> {
    for item in view.list(from)? {
        let Ok(path) = from.join(&item.name) else { continue };
        let Some(found) = view.get(&path)? else { continue };
        let target = to.join(std::ffi::OsStr::from_bytes(&item.name));
        let failed = |source| CopyOutError::Write { path: target.display().to_string(), source };
        match found.stat.file_type {
            FileType::Dir => {
                fs_err::create_dir(&target).map_err(failed)?;
                copy_children(view, &path, &target)?;
            }
            FileType::File => {
                let mut source = view.open_file(&found)?;
                let mut out = File::create_new(&target).map_err(failed)?;
                std::io::copy(&mut source, &mut out).map_err(failed)?;
            }
            FileType::Symlink => {
                let link = view.read_link(&found)?;
                symlink(std::ffi::OsStr::from_bytes(&link), &target).map_err(failed)?;
            }
            FileType::Fifo | FileType::CharDevice | FileType::BlockDevice | FileType::Socket => {
                special(&found, &target).map_err(failed)?;
            }
        }
        attributes(&found, &target)?;
    }
    Ok(())
}

fn special(found: &Located, target: &Path) -> std::io::Result<()> {
    let kind = match found.stat.file_type {
        FileType::CharDevice => rustix::fs::FileType::CharacterDevice,
        FileType::BlockDevice => rustix::fs::FileType::BlockDevice,
        FileType::Socket => rustix::fs::FileType::Socket,
        _ => rustix::fs::FileType::Fifo,
    };
    Ok(mknodat(
        CWD,
        target,
        kind,
        Mode::from_raw_mode(found.stat.mode & 0o7777),
        rustix::fs::makedev(found.stat.rdev.0, found.stat.rdev.1),
    )?)
}

fn attributes(found: &Located, target: &Path) -> Result<(), CopyOutError> {
    let failed = |source| CopyOutError::Write { path: target.display().to_string(), source };
    let stat = &found.stat;
    if stat.file_type == FileType::Symlink {
        lchown(target, Some(stat.uid), Some(stat.gid)).map_err(failed)?;
    } else {
        chown(target, Some(stat.uid), Some(stat.gid)).map_err(failed)?;
        rustix::fs::chmod(target, Mode::from_raw_mode(stat.mode & 0o7777)).map_err(|e| failed(e.into()))?;
    }
    let at = Timespec {
        tv_sec: stat.mtime.div_euclid(1_000_000_000),
        tv_nsec: stat.mtime.rem_euclid(1_000_000_000) as _,
    };
    let times = Timestamps { last_access: at, last_modification: at };
    utimensat(CWD, target, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(e.into()))
}
