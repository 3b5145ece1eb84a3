//! Digests of files that this process writes itself, made while they are written.
//!
//! What [`super::walk()`] finds in a directory that nobody else writes to need not be read again. Such a file is never
//! changed in place: another content is another inode or another change time, and its digest replaces the old one here.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::BorrowedFd;

use super::listing::{file_state, stat_fd};
use super::stat_cache::{DirKey, FileState, Known, StatCache, StatCacheError, encode};
use crate::tree::FileDigest;

/// Hashes a file while it is written.
#[derive(Debug, Default)]
pub struct FileRecorder {
    hasher: blake3::Hasher,
}

/// A file that was written, and its digest.
#[derive(Debug, Clone, Copy)]
pub struct Recorded {
    dir: DirKey,
    state: FileState,
    digest: FileDigest,
    blocks: u64,
}

impl FileRecorder {
    /// Takes the next bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.hasher.update(data);
    }

    /// Ends the file, which lies in `dir`; nothing of it changes any more.
    ///
    /// # Errors
    /// The file's state cannot be read.
    pub fn finish(self, dir: DirKey, file: BorrowedFd<'_>) -> io::Result<Recorded> {
        let stat = stat_fd(file)?;
        let digest = FileDigest::from_bytes(self.hasher.finalize().into());
        Ok(Recorded { dir, state: file_state(&stat), digest, blocks: stat.stx_blocks })
    }
}

impl Recorded {
    /// The digest of its bytes.
    pub const fn digest(&self) -> FileDigest {
        self.digest
    }

    /// The bytes that it takes on disk.
    pub const fn disk_bytes(&self) -> u64 {
        // POSIX leaves the unit open; on Linux it is 512 bytes.
        self.blocks * 512
    }
}

/// Hands the digests to the stat cache; `live` says how many names a directory has now.
///
/// # Errors
/// When the storage fails.
pub fn remember(
    cache: &dyn StatCache,
    written: &[Recorded],
    live: &HashMap<DirKey, usize>,
) -> Result<(), StatCacheError> {
    let mut dirs: BTreeMap<DirKey, Vec<(FileState, FileDigest)>> = BTreeMap::new();
    for file in written {
        dirs.entry(file.dir).or_default().push((file.state, file.digest));
    }
    let mut values = Vec::with_capacity(dirs.len());
    for (dir, mut files) in dirs {
        let before = Known::new(cache.get(dir)?);
        values.push((dir, encode(&mut files, &before, live.get(&dir).copied().unwrap_or_default())));
    }
    if values.is_empty() { Ok(()) } else { cache.put(values) }
}
