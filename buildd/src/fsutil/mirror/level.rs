//! A directory while its entries arrive.

use std::iter::Peekable;
use std::vec;

use cache::context::DirKey;
use proto::fsutil::Stat;
use rustix::fs::FileType;

use super::disk::{self, Disk};
use crate::fsutil::TransferError;

/// What a directory holds: names in the order in which a sender lists them.
#[derive(Debug)]
pub(super) struct Level {
    /// What the sender says of it; `None` for the root, which it does not list.
    stat: Option<Stat>,
    key: DirKey,
    there: Peekable<vec::IntoIter<(Box<[u8]>, FileType)>>,
    /// How many entries the sender has listed in it.
    names: usize,
    /// Whether it has to be described anew.
    changed: bool,
    disk_bytes: u64,
}

impl Level {
    /// Reads the directory that the sender describes like this, which must be there.
    pub(super) fn read(disk: &Disk, stat: Option<Stat>) -> Result<Self, TransferError> {
        let path = stat.as_ref().map_or("", |stat| stat.path.as_str());
        let (there, unlocked) = disk.unlock(path)?;
        let (key, mut names) = disk.list(path)?;
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let changed = unlocked || stat.as_ref().is_some_and(|stat| !disk::is_described(&there, stat));
        let disk_bytes = there.stx_blocks * 512;
        Ok(Self { stat, key, there: names.into_iter().peekable(), names: 0, changed, disk_bytes })
    }

    pub(super) fn path(&self) -> &str {
        self.stat.as_ref().map_or("", |stat| &stat.path)
    }

    /// The path of something in it.
    pub(super) fn child(&self, name: &[u8]) -> Vec<u8> {
        let dir = self.path().as_bytes();
        if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
    }

    /// The next thing there whose name comes before `name`: the sender has passed it.
    pub(super) fn before(&mut self, name: &[u8]) -> Option<(Box<[u8]>, FileType)> {
        let passed = self.there.next_if(|(there, _)| **there < *name);
        self.changed |= passed.is_some();
        passed
    }

    /// What `name` is there; counts it as listed.
    pub(super) fn take(&mut self, name: &[u8]) -> Option<FileType> {
        self.names += 1;
        self.there.next_if(|(there, _)| **there == *name).map(|(_, kind)| kind)
    }

    /// The next thing there that was not listed, when nothing more is.
    pub(super) fn rest(&mut self) -> Option<(Box<[u8]>, FileType)> {
        let left = self.there.next();
        self.changed |= left.is_some();
        left
    }

    /// Notes that something in it changes.
    pub(super) const fn change(&mut self) {
        self.changed = true;
    }

    pub(super) const fn is_changed(&self) -> bool {
        self.changed
    }

    pub(super) const fn key(&self) -> DirKey {
        self.key
    }

    pub(super) const fn names(&self) -> usize {
        self.names
    }

    pub(super) const fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    pub(super) fn into_stat(self) -> Option<Stat> {
        self.stat
    }
}
