//! Reading one directory of a context: names, kinds and states.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxFlags, StatxTimestamp, openat, readlinkat, statx,
};
use rustix::io::Errno;

use super::error::ContextError;
use super::stat_cache::{DirKey, FileState, Known};
use crate::tree::{FileDigest, TreePath};

/// Bytes of directory entries read at a time.
const DIR_BUFFER: usize = 64 << 10;

/// An object as the walk found it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) name: Box<[u8]>,
    pub(super) mode: u32,
    pub(super) state: FileState,
    pub(super) dev: u64,
    pub(super) nlink: u32,
    pub(super) kind: ItemKind,
}

/// Its type, and what is known of its content.
#[derive(Debug)]
pub(super) enum ItemKind {
    File {
        digest: Option<FileDigest>,
    },
    /// The index of its own [`Listing`], and whether it belongs to the context even when nothing in it does.
    Dir {
        listing: usize,
        wanted: bool,
    },
    Symlink {
        target: Box<[u8]>,
    },
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    Socket,
    /// It vanished before it was hashed.
    Gone,
}

/// What a directory holds of the context.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) path: TreePath,
    pub(super) key: DirKey,
    /// What the stat cache had for it.
    pub(super) known: Known,
    pub(super) items: Vec<Item>,
}

/// Opens a directory for reading without following a link in its last component.
pub(super) fn open_dir(parent: BorrowedFd<'_>, name: &CStr) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// The names in an open directory with their types, where the file system tells them.
pub(crate) fn read_names(
    dir: BorrowedFd<'_>,
    path: &TreePath,
    visit: &mut dyn FnMut(&CStr, FileType) -> Result<(), ContextError>,
) -> Result<(), ContextError> {
    let mut buffer = Vec::with_capacity(DIR_BUFFER);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|e| ContextError::io("read", path, e))?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            visit(name, entry.file_type())?;
        }
    }
    Ok(())
}

/// The state of an object in an open directory; `None` when it has just vanished.
pub(crate) fn stat_in(
    dir: BorrowedFd<'_>,
    name: &CStr,
    path: &dyn Fn() -> TreePath,
) -> Result<Option<Statx>, ContextError> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match statx(dir, name, flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(ContextError::io("stat", &path(), e)),
    }
}

/// The state of an open file or directory.
pub(crate) fn stat_fd(fd: BorrowedFd<'_>) -> Result<Statx, Errno> {
    statx(fd.as_fd(), c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

/// An object that is no directory (those get their listing's index from the walk).
pub(super) fn item(
    dir: BorrowedFd<'_>,
    name: &CStr,
    stat: &Statx,
    path: &dyn Fn() -> TreePath,
) -> Result<Item, ContextError> {
    let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => ItemKind::File { digest: None },
        FileType::Symlink => {
            let target = readlinkat(dir, name, Vec::new())
                .map_err(|e| ContextError::io("read the link", &path(), e))?;
            ItemKind::Symlink { target: target.into_bytes().into() }
        }
        FileType::CharacterDevice => ItemKind::CharDevice(stat.stx_rdev_major, stat.stx_rdev_minor),
        FileType::BlockDevice => ItemKind::BlockDevice(stat.stx_rdev_major, stat.stx_rdev_minor),
        FileType::Fifo => ItemKind::Fifo,
        _ => ItemKind::Socket,
    };
    Ok(new_item(name, stat, kind))
}

pub(super) fn new_item(name: &CStr, stat: &Statx, kind: ItemKind) -> Item {
    Item {
        name: name.to_bytes().into(),
        mode: u32::from(stat.stx_mode) & 0o7777,
        state: file_state(stat),
        dev: device(stat),
        nlink: stat.stx_nlink,
        kind,
    }
}

pub(super) fn file_state(stat: &Statx) -> FileState {
    FileState {
        ino: stat.stx_ino,
        size: stat.stx_size,
        mtime: nanoseconds(&stat.stx_mtime),
        ctime: nanoseconds(&stat.stx_ctime),
    }
}

pub(super) fn dir_key(stat: &Statx) -> DirKey {
    DirKey { dev: device(stat), ino: stat.stx_ino }
}

fn device(stat: &Statx) -> u64 {
    rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

fn nanoseconds(time: &StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into())
}
