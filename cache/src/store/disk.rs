//! Space on the file system below the root.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::StoreError;

/// Size and free space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it.
    pub total: u64,
    /// What an ordinary user may still write.
    pub free: u64,
}

/// The space of the file system that holds `path`.
pub(super) fn space(path: &Path) -> Result<DiskSpace, StoreError> {
    let stat =
        rustix::fs::statvfs(path).map_err(|e| StoreError::io("read the free space of", path)(e.into()))?;
    Ok(DiskSpace {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// The free bytes of the file system that holds `path`.
pub(super) fn free_bytes(path: &Path) -> Result<u64, StoreError> {
    Ok(space(path)?.free)
}

/// Bytes that a directory tree takes on disk, hard links counted once. What vanishes meanwhile does not count.
pub(super) fn tree_bytes(path: &Path) -> u64 {
    let mut linked = HashSet::new();
    walkdir::WalkDir::new(path)
        .into_iter()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|meta| meta.is_dir() || meta.nlink() == 1 || linked.insert((meta.dev(), meta.ino())))
        // POSIX leaves the unit of st_blocks open; on Linux it is 512 bytes.
        .map(|meta| meta.blocks() * 512)
        .sum()
}
