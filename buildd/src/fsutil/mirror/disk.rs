//! The files of a mirror: every path is one that an entry of this very transfer has, below directories that it has.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::context::DirKey;
use proto::fsutil::Stat;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags, StatxTimestamp,
};
use rustix::io::Errno;

use crate::fsutil::TransferError;
use crate::fsutil::mode::st_mode;
use crate::fsutil::write::times;

/// Bytes of directory entries read at a time.
const DIR_BUFFER: usize = 32 << 10;

/// What the owner needs to read and to fill a directory.
const OPEN_DIR: u16 = 0o700;

/// The directory that is mirrored into. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: Arc<OwnedFd>,
    /// For messages, and to remove directories.
    path: Arc<Path>,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, TransferError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty());
        let root = Arc::new(root.map_err(|e| TransferError::io(path, e.into()))?);
        Ok(Self { root, path: path.into() })
    }

    /// The state of `path`, which no link leads out of; `None` when there is nothing.
    pub(super) fn stat(&self, path: &str) -> Result<Option<Statx>, TransferError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match rustix::fs::statx(&self.root, path, flags, StatxFlags::BASIC_STATS) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.error(path.as_bytes(), e)),
        }
    }

    /// Lets the owner into a directory; its state before, and whether it changed.
    pub(super) fn unlock(&self, path: &str) -> Result<(Statx, bool), TransferError> {
        let at = if path.is_empty() { "." } else { path };
        let found = self.stat(at)?.ok_or_else(|| self.error(path.as_bytes(), Errno::NOENT))?;
        let locked = found.stx_mode & OPEN_DIR != OPEN_DIR;
        if locked {
            let mode = Mode::from_raw_mode(OPEN_DIR.into());
            let done = rustix::fs::chmodat(&self.root, at, mode, AtFlags::empty());
            done.map_err(|e| self.error(path.as_bytes(), e))?;
        }
        Ok((found, locked))
    }

    /// What is in a directory, in no order.
    #[expect(clippy::type_complexity, reason = "names and types, read in one go")]
    pub(super) fn list(&self, path: &str) -> Result<(DirKey, Vec<(Box<[u8]>, FileType)>), TransferError> {
        let read = || {
            let at = if path.is_empty() { "." } else { path };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = self.open_beneath(at, flags, Mode::empty())?;
            let key = DirKey::of(dir.as_fd())?;
            let mut names = Vec::new();
            let mut buffer = Vec::with_capacity(DIR_BUFFER);
            let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
            while let Some(entry) = entries.next() {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let kind = match entry.file_type() {
                    FileType::Unknown => {
                        let found = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                        FileType::from_raw_mode(found.st_mode)
                    }
                    known => known,
                };
                names.push((name.to_bytes().into(), kind));
            }
            Ok::<_, io::Error>((key, names))
        };
        read().map_err(|e| TransferError::io(self.full(path.as_bytes()), e))
    }

    /// Makes a regular file where nothing is. It has no permissions yet.
    pub(super) fn create(&self, path: &str) -> Result<File, TransferError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.open_beneath(path, flags, Mode::empty());
        file.map(File::from).map_err(|e| self.error(path.as_bytes(), e))
    }

    /// Gives a complete file its mode and time.
    pub(super) fn complete(&self, file: &File, stat: &Stat) -> Result<(), TransferError> {
        let mode = Mode::from_raw_mode(st_mode(stat.mode) & 0o7777);
        rustix::fs::futimens(file, &times(stat))
            .and_then(|()| rustix::fs::fchmod(file, mode))
            .map_err(|e| self.error(stat.path.as_bytes(), e))
    }

    pub(super) fn make_dir(&self, path: &str) -> Result<(), TransferError> {
        let made = rustix::fs::mkdirat(&self.root, path, Mode::from_raw_mode(OPEN_DIR.into()));
        made.map_err(|e| self.error(path.as_bytes(), e))
    }

    pub(super) fn link(&self, target: &str, path: &str) -> Result<(), TransferError> {
        let made = rustix::fs::linkat(&self.root, target, &self.root, path, AtFlags::empty());
        made.map_err(|e| self.error(path.as_bytes(), e))
    }

    /// Gives a file from elsewhere a name here.
    pub(super) fn take(&self, file: &Path, name: &str) -> Result<(), TransferError> {
        let made = rustix::fs::linkat(CWD, file, &self.root, name, AtFlags::empty());
        made.map_err(|e| self.error(name.as_bytes(), e))
    }

    /// Makes a symbolic link, a device or a pipe where nothing is.
    pub(super) fn make(&self, stat: &Stat) -> Result<(), TransferError> {
        let mode = st_mode(stat.mode);
        let made = match FileType::from_raw_mode(mode) {
            FileType::Symlink => rustix::fs::symlinkat(&*stat.linkname, &self.root, &*stat.path),
            kind => device(stat).and_then(|device| {
                let mode = Mode::from_raw_mode(mode & 0o7777);
                rustix::fs::mknodat(&self.root, &*stat.path, kind, mode, device)
            }),
        };
        made.map_err(|e| self.error(stat.path.as_bytes(), e))?;
        self.describe(stat)
    }

    /// Whether the link, device or pipe that is there is what the sender has.
    pub(super) fn is_same(&self, stat: &Stat) -> Result<bool, TransferError> {
        let Some(there) = self.stat(&stat.path)?.filter(|there| is_described(there, stat)) else {
            return Ok(false);
        };
        match FileType::from_raw_mode(st_mode(stat.mode)) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&self.root, &*stat.path, Vec::new());
                let target = target.map_err(|e| self.error(stat.path.as_bytes(), e))?;
                Ok(target.as_bytes() == stat.linkname.as_bytes())
            }
            FileType::Fifo => Ok(true),
            _ => Ok(i64::from(there.stx_rdev_major) == stat.devmajor
                && i64::from(there.stx_rdev_minor) == stat.devminor),
        }
    }

    /// Sets mode and time of what is no regular file.
    pub(super) fn describe(&self, stat: &Stat) -> Result<(), TransferError> {
        let mode = st_mode(stat.mode);
        let described = || {
            if FileType::from_raw_mode(mode) != FileType::Symlink {
                let mode = Mode::from_raw_mode(mode & 0o7777);
                rustix::fs::chmodat(&self.root, &*stat.path, mode, AtFlags::empty())?;
            }
            rustix::fs::utimensat(&self.root, &*stat.path, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
        };
        described().map_err(|e| self.error(stat.path.as_bytes(), e))
    }

    /// Makes room for something else at `path`.
    pub(super) fn clear(&self, path: &str, there: Option<FileType>) -> Result<(), TransferError> {
        there.map_or(Ok(()), |kind| self.remove(path.as_bytes(), kind))
    }

    /// Removes what is at `path`.
    pub(super) fn remove(&self, path: &[u8], kind: FileType) -> Result<(), TransferError> {
        if kind != FileType::Directory {
            let removed = rustix::fs::unlinkat(&self.root, path, AtFlags::empty());
            return removed.map_err(|e| self.error(path, e));
        }
        let full = self.full(path);
        fs_err::remove_dir_all(&full).map_err(|e| TransferError::io(full, e))
    }

    fn open_beneath(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, path, flags, mode, resolve)
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    fn error(&self, path: &[u8], error: Errno) -> TransferError {
        TransferError::io(self.full(path), error.into())
    }
}

/// Whether kind, permissions and modification time are those that the sender tells of.
pub(super) fn is_described(there: &Statx, stat: &Stat) -> bool {
    let mode = st_mode(stat.mode);
    // A symbolic link has no permissions.
    let link = FileType::from_raw_mode(mode) == FileType::Symlink;
    let mask = if link { 0o170000 } else { 0o177777 };
    u32::from(there.stx_mode) & mask == mode & mask && nanoseconds(&there.stx_mtime) == Some(stat.mod_time)
}

fn nanoseconds(time: &StatxTimestamp) -> Option<i64> {
    time.tv_sec.checked_mul(1_000_000_000)?.checked_add(time.tv_nsec.into())
}

fn device(stat: &Stat) -> Result<u64, Errno> {
    let number = |n: i64| u32::try_from(n).map_err(|_| Errno::INVAL);
    Ok(rustix::fs::makedev(number(stat.devmajor)?, number(stat.devminor)?))
}
