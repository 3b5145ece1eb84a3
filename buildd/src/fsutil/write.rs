//! A directory of this host as the receiving end.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use fs_err as fs;
use proto::fsutil::Stat;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};

use super::TransferError;
use super::mode::st_mode;
use super::receive::{Data, Sink};

/// Files that are under way at a time. BuildKit's senders send four; each takes a descriptor, of which other builds
/// need some, too.
pub(super) const MAX_OPEN: usize = 256;

/// Who owns what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whoever writes.
    Mine,
    /// As sent; needs CAP_CHOWN.
    AsSent,
}

/// Writes entries below a directory that must exist; other files there stay.
///
/// An entry replaces what has its name, except that a directory keeps an existing directory's content.
#[derive(Debug)]
pub struct DirWriter {
    root: PathBuf,
    owners: Owners,
    /// Files asked for, from their entry to their end.
    files: HashMap<u32, Pending>,
    /// Directories get their mode and time last: a read-only one could not be filled.
    dirs: Vec<Stat>,
    /// Hard links are made last: their targets get replaced when their data comes.
    links: Vec<Stat>,
    /// How many of `files` are open.
    open: usize,
    /// Bytes of data written.
    written: u64,
}

#[derive(Debug)]
struct Pending {
    stat: Stat,
    file: Option<File>,
}

impl DirWriter {
    /// A writer below `root`.
    pub fn new(root: &Path, owners: Owners) -> Self {
        Self {
            root: root.to_owned(),
            owners,
            files: HashMap::new(),
            dirs: Vec::new(),
            links: Vec::new(),
            open: 0,
            written: 0,
        }
    }

    /// Bytes of file data written so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    fn make(&self, path: &Path, stat: &Stat) -> io::Result<()> {
        let mode = st_mode(stat.mode);
        match FileType::from_raw_mode(mode) {
            FileType::Directory => make_dir(path),
            FileType::Symlink => remove(path).and_then(|()| symlink(&stat.linkname, path)),
            FileType::RegularFile => {
                remove(path)?;
                fs::hard_link(self.root.join(&stat.linkname), path)
            }
            kind => {
                remove(path)?;
                let number =
                    |n: i64| u32::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
                let dev = rustix::fs::makedev(number(stat.devmajor)?, number(stat.devminor)?);
                Ok(rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode & 0o7777), dev)?)
            }
        }
    }

    /// Sets owner, mode and time of an entry that is no regular file.
    fn describe(&self, path: &Path, stat: &Stat) -> io::Result<()> {
        let mode = st_mode(stat.mode);
        if self.owners == Owners::AsSent {
            std::os::unix::fs::lchown(path, Some(stat.uid), Some(stat.gid))?;
        }
        let bits = Mode::from_raw_mode(mode & 0o7777);
        match FileType::from_raw_mode(mode) {
            FileType::Symlink => {}
            FileType::Directory => {
                // Whatever has taken its place is not followed.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::fchmod(rustix::fs::open(path, flags, Mode::empty())?, bits)?;
            }
            _ => rustix::fs::chmod(path, bits)?,
        }
        Ok(rustix::fs::utimensat(CWD, path, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn file(&mut self, id: u32) -> Result<(&mut File, PathBuf), TransferError> {
        let pending = self.files.get_mut(&id).ok_or(TransferError::Id(id))?;
        let path = self.root.join(&pending.stat.path);
        let file = match pending.file.take() {
            Some(file) => file,
            None if self.open >= MAX_OPEN => return Err(TransferError::Open(MAX_OPEN)),
            None => {
                self.open += 1;
                create(&path).map_err(|e| TransferError::io(&path, e))?
            }
        };
        Ok((pending.file.insert(file), path))
    }
}

impl Sink for DirWriter {
    fn entry(&mut self, id: u32, stat: Stat) -> Result<bool, TransferError> {
        let kind = FileType::from_raw_mode(st_mode(stat.mode));
        if kind == FileType::RegularFile && stat.linkname.is_empty() {
            self.files.insert(id, Pending { stat, file: None });
            return Ok(true);
        }
        if kind == FileType::RegularFile {
            self.links.push(stat);
            return Ok(false);
        }
        let path = self.root.join(&stat.path);
        self.make(&path, &stat).map_err(|e| TransferError::io(&path, e))?;
        if kind == FileType::Directory {
            self.dirs.push(stat);
        } else {
            self.describe(&path, &stat).map_err(|e| TransferError::io(&path, e))?;
        }
        Ok(false)
    }

    fn data(&mut self, id: u32, data: Data) -> Result<(), TransferError> {
        self.written += data.len() as u64;
        let (file, path) = self.file(id)?;
        file.write_all(&data).map_err(|e| TransferError::io(path, e))
    }

    fn end(&mut self, id: u32) -> Result<(), TransferError> {
        let owners = self.owners;
        let (_, path) = self.file(id)?;
        let Some(Pending { stat, file: Some(file) }) = self.files.remove(&id) else {
            return Err(TransferError::Id(id));
        };
        self.open -= 1;
        let described = || -> io::Result<()> {
            if owners == Owners::AsSent {
                std::os::unix::fs::fchown(&file, Some(stat.uid), Some(stat.gid))?;
            }
            rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(st_mode(stat.mode) & 0o7777))?;
            Ok(rustix::fs::futimens(file.as_fd(), &times(&stat))?)
        };
        described().map_err(|e| TransferError::io(path, e))
    }

    fn finish(&mut self) -> Result<(), TransferError> {
        for stat in std::mem::take(&mut self.links) {
            let path = self.root.join(&stat.path);
            self.make(&path, &stat).map_err(|e| TransferError::io(&path, e))?;
        }
        for stat in std::mem::take(&mut self.dirs).iter().rev() {
            let path = self.root.join(&stat.path);
            self.describe(&path, stat).map_err(|e| TransferError::io(&path, e))?;
        }
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    remove(path)?;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn make_dir(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => fs::remove_file(path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    // Open to the writer until it is filled.
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

pub(super) fn times(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.mod_time.div_euclid(1_000_000_000),
        tv_nsec: stat.mod_time.rem_euclid(1_000_000_000) as _,
    };
    Timestamps { last_access: time, last_modification: time }
}
