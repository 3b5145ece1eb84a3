//! Mount points made for a sandbox, and their removal afterwards.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// An empty file or directory that a mount needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stub {
    /// Relative to the root; real names only, no links.
    path: Vec<u8>,
    directory: bool,
    /// Access and modification time of its directory before it was made.
    before: [(i64, i64); 2],
    /// Modification time of its directory right after.
    after: (i64, i64),
}

impl Stub {
    pub(crate) fn new(path: Vec<u8>, directory: bool, before: &Stat, after: &Stat) -> Self {
        Self { path, directory, before: [accessed(before), modified(before)], after: modified(after) }
    }
}

/// Removes what is still as it was made, deepest first. Called when nothing runs in the sandbox any more.
///
/// A link anywhere in a stub's path means that the command has replaced a directory: then nothing is touched.
pub(crate) fn remove(root: BorrowedFd<'_>, stubs: &[Stub]) {
    for stub in stubs.iter().rev() {
        // An error leaves the stub in the layer; there is nobody it could harm and nothing better to do.
        let _kept = remove_one(root, stub);
    }
}

fn remove_one(root: BorrowedFd<'_>, stub: &Stub) -> Result<(), Errno> {
    let path = Path::new(OsStr::from_bytes(&stub.path));
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let parent = rustix::fs::openat2(root, parent, flags, Mode::empty(), resolve)?;
    let found = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let directory_before = rustix::fs::fstat(&parent)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory if stub.directory => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?,
        FileType::RegularFile if !stub.directory && found.st_size == 0 => {
            rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
        }
        _ => return Ok(()),
    }
    restore_times(parent.as_fd(), stub, &directory_before)
}

/// Making and removing the stub must not show in its directory's times, what the command did must.
fn restore_times(parent: BorrowedFd<'_>, stub: &Stub, seen: &Stat) -> Result<(), Errno> {
    let [access, modification] =
        if modified(seen) == stub.after { stub.before } else { [accessed(seen), modified(seen)] };
    let times = Timestamps { last_access: timespec(access), last_modification: timespec(modification) };
    rustix::fs::futimens(parent, &times)
}

fn accessed(stat: &Stat) -> (i64, i64) {
    (stat.st_atime, stat.st_atime_nsec as i64)
}

fn modified(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime, stat.st_mtime_nsec as i64)
}

fn timespec((seconds, nanos): (i64, i64)) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: nanos as _ }
}
