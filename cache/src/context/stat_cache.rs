//! Digests of files that did not change since they were last hashed.
//!
//! One value per directory, so that an unchanged context costs one look-up per directory. An entry says: the file
//! with this inode, size, modification and change time has this digest. It is written only if both times were at
//! least [`SETTLED_NS`] old when hashing began: a later edit then always gives another change time, however coarse
//! the clock of the file system.
//!
//! Format of a value: version byte 1, then per file 64 bytes in order of inode, all numbers little-endian:
//! inode `u64`, size `u64`, mtime `i64`, ctime `i64` (nanoseconds since 1970), digest (32 bytes).

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::tree::FileDigest;

/// How old a file's times must be before its digest is kept, in nanoseconds.
pub(super) const SETTLED_NS: i64 = 2_000_000_000;

const VERSION: u8 = 1;
const ENTRY: usize = 64;
/// How many digests of files that a walk did not see are kept for a directory, besides as many as live there.
const MAX_OTHERS: usize = 1024;

/// A directory by device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirKey {
    /// Device number as `stat` gives it.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl DirKey {
    /// That of an open directory.
    ///
    /// # Errors
    /// Its state cannot be read.
    pub fn of(dir: BorrowedFd<'_>) -> std::io::Result<Self> {
        Ok(super::listing::dir_key(&super::listing::stat_fd(dir)?))
    }
}

/// A failure of the storage below a stat cache.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the stat cache")]
pub struct StatCacheError {
    /// `read` or `write`.
    pub action: &'static str,
    /// What the storage said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Storage of one value per directory. Values are opaque; a damaged or lost one costs time, not correctness.
pub trait StatCache: Send + Sync {
    /// The value of a directory.
    ///
    /// # Errors
    /// When the storage fails.
    fn get(&self, dir: DirKey) -> Result<Option<Bytes>, StatCacheError>;

    /// Replaces the values of directories.
    ///
    /// # Errors
    /// When the storage fails.
    fn put(&self, values: Vec<(DirKey, Bytes)>) -> Result<(), StatCacheError>;
}

/// A stat cache in memory.
#[derive(Debug, Default)]
pub struct MemoryStatCache(Mutex<HashMap<DirKey, Bytes>>);

impl StatCache for MemoryStatCache {
    fn get(&self, dir: DirKey) -> Result<Option<Bytes>, StatCacheError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&dir).cloned())
    }

    fn put(&self, values: Vec<(DirKey, Bytes)>) -> Result<(), StatCacheError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(values);
        Ok(())
    }
}

/// What identifies the state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileState {
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
}

impl FileState {
    /// Whether a digest made by hashing that began at `start` may be kept.
    pub(super) fn settled_before(&self, start: i64) -> bool {
        self.mtime.max(self.ctime) <= start.saturating_sub(SETTLED_NS)
    }

    fn encode(&self, digest: &FileDigest) -> [u8; ENTRY] {
        let mut out = [0; ENTRY];
        out[..8].copy_from_slice(&self.ino.to_le_bytes());
        out[8..16].copy_from_slice(&self.size.to_le_bytes());
        out[16..24].copy_from_slice(&self.mtime.to_le_bytes());
        out[24..32].copy_from_slice(&self.ctime.to_le_bytes());
        out[32..].copy_from_slice(digest.as_bytes());
        out
    }
}

/// The known digests of one directory.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Bytes);

impl Known {
    /// Wraps a stored value; one of another version or length counts as empty.
    pub(super) fn new(value: Option<Bytes>) -> Self {
        let value = value.filter(|v| v.first() == Some(&VERSION) && v.len() % ENTRY == 1);
        Self(value.unwrap_or_default())
    }

    /// The digest of a file in exactly this state.
    pub(super) fn digest(&self, state: &FileState) -> Option<FileDigest> {
        let entries = self.entries();
        let entry = &entries[entries.binary_search_by_key(&state.ino, inode).ok()?];
        let digest = FileDigest::from_bytes(*entry.last_chunk().expect("an entry is longer than a digest"));
        (state.encode(&digest) == *entry).then_some(digest)
    }

    fn entries(&self) -> &[[u8; ENTRY]] {
        self.0.get(1..).unwrap_or_default().as_chunks().0
    }
}

/// The value that keeps these digests, and those of `before` whose inodes are not among them.
///
/// A walk may see only part of a directory; what others saw stays, unless it is much more than the `live` files.
pub(super) fn encode(files: &mut [(FileState, FileDigest)], before: &Known, live: usize) -> Bytes {
    files.sort_unstable_by_key(|(state, _)| state.ino);
    let mut entries: Vec<[u8; ENTRY]> = files.iter().map(|(state, digest)| state.encode(digest)).collect();
    let seen =
        |entry: &&[u8; ENTRY]| files.binary_search_by_key(&inode(entry), |(state, _)| state.ino).is_err();
    let others: Vec<_> = before.entries().iter().filter(seen).copied().collect();
    if others.len() <= live + MAX_OTHERS {
        entries.extend(others);
        entries.sort_unstable_by_key(inode);
    }
    let mut out = Vec::with_capacity(1 + entries.len() * ENTRY);
    out.push(VERSION);
    out.extend_from_slice(entries.as_flattened());
    out.into()
}

fn inode(entry: &[u8; ENTRY]) -> u64 {
    u64::from_le_bytes(*entry.first_chunk().expect("an entry is longer than a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(ino: u64) -> FileState {
        FileState { ino, size: 3, mtime: 5_000, ctime: 7_000 }
    }

    #[test]
    fn finds_what_was_kept_and_nothing_else() {
        let mut files: Vec<_> = [9, 2, 5].map(|i| (state(i), FileDigest::of(&[i as u8]))).into();
        let known = Known::new(Some(encode(&mut files, &Known::default(), 3)));
        assert_eq!(known.entries().len(), 3);
        for i in [2, 5, 9] {
            assert_eq!(known.digest(&state(i)), Some(FileDigest::of(&[i as u8])));
        }
        assert_eq!(known.digest(&state(4)), None);
        for other in [
            FileState { size: 4, ..state(5) },
            FileState { mtime: 5_001, ..state(5) },
            FileState { ctime: 7_001, ..state(5) },
        ] {
            assert_eq!(known.digest(&other), None, "{other:?}");
        }
    }

    #[test]
    fn a_damaged_value_is_empty() {
        for value in [&b""[..], b"\x01abc", b"\x02"] {
            assert_eq!(Known::new(Some(Bytes::copy_from_slice(value))).entries().len(), 0);
        }
    }

    #[test]
    fn fresh_files_are_not_kept() {
        let state = FileState { ino: 1, size: 1, mtime: 1_000, ctime: 10_000_000_000 };
        assert!(!state.settled_before(10_000_000_000 + SETTLED_NS - 1));
        assert!(state.settled_before(10_000_000_000 + SETTLED_NS));
    }
}
