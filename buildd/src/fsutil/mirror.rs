//! A directory of this host as the receiving end, made equal to what is sent by as few changes as possible.
//!
//! What is in the directory is compared with what the sender lists, by metadata: what is equal stays, what differs is
//! replaced, and what is not listed is removed. So it must hold nothing but what earlier transfers left, and nobody else
//! may write there meanwhile.
//!
//! A transfer that fails leaves it fit for the next one: files are replaced and never changed in place, and one has its
//! mode and time only when it is complete.

mod disk;
mod level;
#[cfg(test)]
mod tests;
mod writers;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use cache::context::{DirKey, Recorded};
use proto::fsutil::Stat;
use rustix::fs::FileType;
use tempfile::NamedTempFile;

use self::disk::Disk;
use self::level::Level;
use self::writers::{NewFile, Writers};
use super::TransferError;
use super::mode::{has_data, st_mode};
use super::receive::{Data, Sink};
use super::write::MAX_OPEN;

/// When a file counts as unchanged (LLB's `local.differ`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Differ {
    /// When its metadata is equal.
    #[default]
    Metadata,
    /// Never: all files are sent.
    None,
}

/// Makes a directory equal to what is sent.
#[derive(Debug)]
pub struct Mirror {
    disk: Disk,
    differ: Differ,
    /// The directories from the root down to the last entry.
    open: Vec<Level>,
    /// Files asked for, until their data comes.
    wanted: HashMap<u32, NewFile>,
    /// How many files are under way.
    under_way: usize,
    writers: Writers,
    /// Hard links are made last: their targets get replaced when their data comes.
    links: Vec<Stat>,
    /// Directories in which something changes. They get their mode and time last: a read-only one could not be filled.
    changed: Vec<Stat>,
    /// Files with several names of which one was found to be right: the others belong to other files now.
    kept: HashSet<u64>,
    done: Mirrored,
}

/// What a transfer made.
#[derive(Debug, Default)]
pub struct Mirrored {
    /// Files written, with their digests.
    pub written: Vec<Recorded>,
    /// How many names the directories have in which something was written.
    pub live: HashMap<DirKey, usize>,
    /// What all takes on disk, in bytes.
    pub disk_bytes: u64,
}

impl Mirror {
    /// Prepares the directory at `path` for a transfer. `owner` is dropped when the last thread has let go of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn new(
        path: &Path,
        differ: Differ,
        owner: Arc<dyn std::any::Any + Send + Sync>,
    ) -> Result<Self, TransferError> {
        let disk = Disk::open(path)?;
        let root = Level::read(&disk, None)?;
        let writers = Writers::new(disk.clone(), owner);
        Ok(Self {
            disk,
            differ,
            open: vec![root],
            wanted: HashMap::new(),
            under_way: 0,
            writers,
            links: Vec::new(),
            changed: Vec::new(),
            kept: HashSet::new(),
            done: Mirrored::default(),
        })
    }

    /// What was done, once all is.
    pub fn into_done(mut self) -> Mirrored {
        std::mem::take(&mut self.done)
    }

    /// Puts a file beside what was sent, once all is there.
    ///
    /// # Errors
    /// It is on another file system, or something has its name.
    pub(super) fn add(&mut self, name: &str, file: &NamedTempFile) -> Result<(), TransferError> {
        let stat = Stat { path: name.to_owned(), mode: 0o644, ..Stat::default() };
        self.disk.complete(file.as_file(), &stat)?;
        self.disk.take(file.path(), name)?;
        self.done.disk_bytes += self.disk.stat(name)?.map_or(0, |found| found.stx_blocks * 512);
        Ok(())
    }

    /// Goes to the directory of an entry, and to the entry's place in it: whatever lies before it is not listed.
    fn go_to(&mut self, path: &str) -> Result<Option<FileType>, TransferError> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        while self.open.last().is_some_and(|top| top.path() != dir) {
            self.leave()?;
        }
        let Self { disk, open, .. } = self;
        let top = open.last_mut().ok_or_else(|| TransferError::Order(path.to_owned()))?;
        while let Some((other, kind)) = top.before(name.as_bytes()) {
            disk.remove(&top.child(&other), kind)?;
        }
        Ok(top.take(name.as_bytes()))
    }

    /// Ends the innermost directory.
    fn leave(&mut self) -> Result<(), TransferError> {
        let mut level = self.open.pop().ok_or(TransferError::Cancelled)?;
        while let Some((name, kind)) = level.rest() {
            self.disk.remove(&level.child(&name), kind)?;
        }
        if level.is_changed() {
            self.done.live.insert(level.key(), level.names());
            self.changed.extend(level.into_stat());
        }
        Ok(())
    }

    fn top(&mut self) -> Result<&mut Level, TransferError> {
        self.open.last_mut().ok_or(TransferError::Cancelled)
    }

    fn directory(&mut self, stat: Stat, found: Option<FileType>) -> Result<(), TransferError> {
        match found {
            Some(FileType::Directory) => {}
            other => {
                self.disk.clear(&stat.path, other)?;
                self.disk.make_dir(&stat.path)?;
                self.top()?.change();
            }
        }
        let level = Level::read(&self.disk, Some(stat))?;
        self.done.disk_bytes += level.disk_bytes();
        self.open.push(level);
        Ok(())
    }

    /// Whether the regular file that is there is the one that the sender has.
    fn keeps(&mut self, stat: &Stat, found: Option<FileType>) -> Result<bool, TransferError> {
        if self.differ == Differ::None || found != Some(FileType::RegularFile) {
            return Ok(false);
        }
        let Some(there) = self.disk.stat(&stat.path)? else { return Ok(false) };
        let same = disk::is_described(&there, stat) && u64::try_from(stat.size) == Ok(there.stx_size);
        // What the sender has as two files may have been one.
        let same = same && (there.stx_nlink == 1 || self.kept.insert(there.stx_ino));
        if same {
            self.done.disk_bytes += there.stx_blocks * 512;
        }
        Ok(same)
    }

    /// The file, when the first is heard of it.
    fn begin(&mut self, id: u32) -> Result<Option<NewFile>, TransferError> {
        let new = self.wanted.remove(&id);
        if new.is_some() {
            if self.under_way == MAX_OPEN {
                return Err(TransferError::Open(MAX_OPEN));
            }
            self.under_way += 1;
        }
        Ok(new)
    }

    fn link(&self, stat: &Stat) -> Result<(), TransferError> {
        let target = self.disk.stat(&stat.linkname)?;
        let there = self.disk.stat(&stat.path)?;
        if let (Some(target), Some(there)) = (&target, &there)
            && target.stx_ino == there.stx_ino
        {
            return Ok(());
        }
        let kind = there.map(|there| FileType::from_raw_mode(there.stx_mode.into()));
        self.disk.clear(&stat.path, kind)?;
        self.disk.link(&stat.linkname, &stat.path)
    }
}

impl Sink for Mirror {
    fn entry(&mut self, id: u32, stat: Stat) -> Result<bool, TransferError> {
        let found = self.go_to(&stat.path)?;
        let kind = FileType::from_raw_mode(st_mode(stat.mode));
        match kind {
            FileType::Directory => self.directory(stat, found)?,
            FileType::RegularFile if !stat.linkname.is_empty() => {
                self.top()?.change();
                self.links.push(stat);
            }
            FileType::RegularFile if has_data(stat.mode) => {
                if self.keeps(&stat, found)? {
                    return Ok(false);
                }
                // A file gives way when the new one comes, anything else now.
                if found.is_some_and(|kind| kind == FileType::Directory) {
                    self.disk.clear(&stat.path, found)?;
                }
                let replaces = found.is_some_and(|kind| kind != FileType::Directory);
                let top = self.top()?;
                top.change();
                let dir = top.key();
                self.wanted.insert(id, NewFile { stat, dir, replaces });
                return Ok(true);
            }
            // Something that cannot be sent.
            FileType::RegularFile => self.disk.clear(&stat.path, found)?,
            _ if found == Some(kind) && self.disk.is_same(&stat)? => {}
            _ => {
                self.disk.clear(&stat.path, found)?;
                self.disk.make(&stat)?;
                self.top()?.change();
            }
        }
        Ok(false)
    }

    fn data(&mut self, id: u32, data: Data) -> Result<(), TransferError> {
        let new = self.begin(id)?;
        self.writers.data(id, new, data);
        Ok(())
    }

    fn end(&mut self, id: u32) -> Result<(), TransferError> {
        let new = self.begin(id)?;
        self.under_way -= 1;
        self.writers.end(id, new);
        Ok(())
    }

    fn pause(&mut self) -> Result<(), TransferError> {
        self.writers.hand_over()
    }

    fn finish(&mut self) -> Result<(), TransferError> {
        while !self.open.is_empty() {
            self.leave()?;
        }
        self.done.written = self.writers.finish()?;
        self.done.disk_bytes += self.done.written.iter().map(Recorded::disk_bytes).sum::<u64>();
        for stat in std::mem::take(&mut self.links) {
            self.link(&stat)?;
        }
        // The outer ones last, which were left last.
        for stat in std::mem::take(&mut self.changed) {
            self.disk.describe(&stat)?;
        }
        Ok(())
    }
}
