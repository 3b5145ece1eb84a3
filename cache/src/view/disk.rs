//! Objects on disk, looked at without ever following a symbolic link.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};

use crate::tree::Xattrs;

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
    /// When content or attributes changed last, in nanoseconds since 1970; no program can set it.
    pub ctime: i64,
    /// Device numbers (major, minor) of a device.
    pub rdev: (u32, u32),
    /// Inode number, the same for the names of a hard-link group in one layer.
    pub ino: u64,
    /// Number of names of the inode.
    pub nlink: u32,
    /// Bytes allocated on disk.
    pub allocated: u64,
}

impl Stat {
    /// Whether it marks a removed name: overlayfs's character device 0:0, or a block device 0:0 where the file system
    /// is an overlay itself and refuses that.
    pub fn is_whiteout(&self) -> bool {
        matches!(self.file_type, FileType::CharDevice | FileType::BlockDevice) && self.rdev == (0, 0)
    }
}

impl FileType {
    fn of(raw: fs::FileType) -> Self {
        match raw {
            fs::FileType::Directory => Self::Dir,
            fs::FileType::Symlink => Self::Symlink,
            fs::FileType::CharacterDevice => Self::CharDevice,
            fs::FileType::BlockDevice => Self::BlockDevice,
            fs::FileType::Fifo => Self::Fifo,
            fs::FileType::Socket => Self::Socket,
            fs::FileType::RegularFile | fs::FileType::Unknown => Self::File,
        }
    }
}

/// A name read from a directory; the type is `None` where the file system does not say it there.
#[derive(Debug)]
pub(crate) struct RawName {
    pub(crate) name: Box<[u8]>,
    pub(crate) file_type: Option<FileType>,
}

/// Opens a directory by a path of the daemon's own.
pub(crate) fn open_root(dir: &Path) -> io::Result<OwnedFd> {
    Ok(fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens `path` below `dir`; no component, not even the last, may be a symbolic link.
pub(crate) fn open_beneath(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match fs::openat2(dir, path, flags, Mode::empty(), how) {
            // The kernel asks to try again when something was renamed meanwhile (openat2(2)).
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Opens the directory at `path` below `dir` for reading.
pub(crate) fn open_dir(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    open_beneath(dir, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens the regular file at `path` below `dir` for reading. A pipe or device in its place is not waited for.
pub(crate) fn open_file(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<File> {
    Ok(open_beneath(dir, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?.into())
}

/// The attributes of a name; `None` when there is none. Only the last component of `path` may be unknown.
pub(crate) fn stat(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<Option<Stat>> {
    match fs::statat(dir, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(raw) => Ok(Some(convert(&raw))),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The attributes of an open object.
pub(crate) fn fstat(fd: impl AsFd) -> io::Result<Stat> {
    Ok(convert(&fs::fstat(fd)?))
}

fn convert(raw: &fs::Stat) -> Stat {
    let rdev = raw.st_rdev;
    let nanos = |seconds: i64, rest: u64| {
        seconds.saturating_mul(1_000_000_000).saturating_add(i64::try_from(rest).unwrap_or(0))
    };
    Stat {
        file_type: FileType::of(fs::FileType::from_raw_mode(raw.st_mode)),
        mode: raw.st_mode & 0o7777,
        uid: raw.st_uid,
        gid: raw.st_gid,
        size: u64::try_from(raw.st_size).unwrap_or(0),
        mtime: nanos(raw.st_mtime, raw.st_mtime_nsec),
        ctime: nanos(raw.st_ctime, raw.st_ctime_nsec),
        rdev: (fs::major(rdev), fs::minor(rdev)),
        ino: raw.st_ino,
        nlink: u32::try_from(raw.st_nlink).unwrap_or(u32::MAX),
        allocated: u64::try_from(raw.st_blocks).unwrap_or(0).saturating_mul(512),
    }
}

/// The names in an open directory, unsorted.
pub(crate) fn names(dir: &OwnedFd) -> io::Result<Vec<RawName>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let file_type = match entry.file_type() {
            fs::FileType::Unknown => None,
            known => Some(FileType::of(known)),
        };
        names.push(RawName { name: name.into(), file_type });
    }
    Ok(names)
}

/// What a symbolic link says.
pub(crate) fn read_link(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<Box<[u8]>> {
    Ok(fs::readlinkat(dir, path, Vec::new())?.into_bytes().into())
}

/// Extended attributes of an open file or directory, sorted by name.
pub(crate) fn xattrs_of(fd: impl AsFd) -> io::Result<Xattrs> {
    let fd = fd.as_fd();
    read_xattrs(|buf| fs::flistxattr(fd, buf), |name, buf| fs::fgetxattr(fd, name, buf))
}

/// Extended attributes of a name that cannot be opened (a link, a device), sorted by name.
pub(crate) fn xattrs_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Xattrs> {
    let path = proc_path(dir, name);
    read_xattrs(|buf| fs::llistxattr(&*path, buf), |name, buf| fs::lgetxattr(&*path, name, buf))
}

/// A path to `name` in an open directory, for the calls that have no `…at` form.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

fn read_xattrs(
    mut list: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
    mut get: impl FnMut(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Xattrs> {
    // Most objects have none, and the rest have few: one call with a small buffer is enough for nearly all.
    let mut small = [0u8; 512];
    let listed = match list(&mut small) {
        Ok(0) | Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        Ok(n) => small[..n].to_vec(),
        Err(rustix::io::Errno::RANGE) => grow(&mut list)?,
        Err(e) => return Err(e.into()),
    };
    let mut found = Xattrs::new();
    for name in listed.split(|&b| b == 0).filter(|name| !name.is_empty()) {
        match grow(|buf| get(name, buf)) {
            Ok(value) => found.push((name.into(), value.into())),
            // Listed but not readable here, as `trusted.*` in a user namespace.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NODATA.raw_os_error()) => {}
            Err(e) => return Err(e),
        }
    }
    found.sort();
    Ok(found)
}

/// Calls `read` with buffers up to the kernel's limit for one attribute and for one list (64 KiB).
fn grow(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<u8>> {
    for size in [256, 4096, 65536] {
        let mut buf = vec![0; size];
        match read(&mut buf) {
            Ok(n) => {
                buf.truncate(n);
                return Ok(buf);
            }
            Err(rustix::io::Errno::RANGE) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(rustix::io::Errno::RANGE.into())
}
