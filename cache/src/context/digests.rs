//! Digests of files in a directory that is read for something else than a context.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use bytes::Bytes;
use rustix::fs::Statx;

use super::error::ContextError;
use super::hash::FileHasher;
use super::listing::file_state;
use super::stat_cache::{DirKey, FileState, Known, StatCache, encode};
use crate::tree::{FileDigest, TreePath};

/// Digests of files, out of the stat cache where it knows them, one directory after another.
pub(crate) struct FileDigests<'a> {
    cache: &'a dyn StatCache,
    hasher: FileHasher,
    values: Vec<(DirKey, Bytes)>,
}

/// Those of one directory.
pub(crate) struct DirDigests {
    key: DirKey,
    known: Known,
    files: Vec<(FileState, FileDigest)>,
    changed: bool,
}

impl<'a> FileDigests<'a> {
    pub(crate) fn new(cache: &'a dyn StatCache) -> Self {
        Self { cache, hasher: FileHasher::new(), values: Vec::new() }
    }

    /// Begins with a directory.
    pub(crate) fn enter(&self, key: DirKey) -> Result<DirDigests, ContextError> {
        let known = Known::new(self.cache.get(key)?);
        Ok(DirDigests { key, known, files: Vec::new(), changed: false })
    }

    /// The digest and the size of a regular file; `None` when it has just vanished.
    pub(crate) fn of(
        &mut self,
        within: &mut DirDigests,
        dir: BorrowedFd<'_>,
        name: &CStr,
        stat: &Statx,
        path: &dyn Fn() -> TreePath,
    ) -> Result<Option<(FileDigest, u64)>, ContextError> {
        let state = file_state(stat);
        if let Some(digest) = within.known.digest(&state) {
            within.files.push((state, digest));
            return Ok(Some((digest, state.size)));
        }
        let Some(hashed) = self.hasher.hash(dir, name, path)? else { return Ok(None) };
        if hashed.settled {
            within.changed = true;
            within.files.push((hashed.state, hashed.digest));
        }
        Ok(Some((hashed.digest, hashed.state.size)))
    }

    /// Ends a directory.
    pub(crate) fn leave(&mut self, mut dir: DirDigests) {
        if dir.changed {
            let live = dir.files.len();
            self.values.push((dir.key, encode(&mut dir.files, &dir.known, live)));
        }
    }

    /// Keeps what was hashed.
    pub(crate) fn finish(self) -> Result<(), ContextError> {
        if self.values.is_empty() { Ok(()) } else { Ok(self.cache.put(self.values)?) }
    }
}
