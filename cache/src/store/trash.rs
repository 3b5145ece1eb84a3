//! Removing directory trees: first out of the way in one step, then file by file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fs_err as fs;

use super::error::StoreError;

/// Renames things into `tmp/`, which is emptied at the next start if we do not come to it.
#[derive(Debug)]
pub(super) struct Trash {
    tmp: PathBuf,
    /// Tells this process's names from those that an earlier one left.
    process: u128,
    next: AtomicU64,
}

impl Trash {
    pub(super) fn new(tmp: PathBuf) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { tmp, process: since.as_nanos(), next: AtomicU64::new(0) }
    }

    /// Moves `path` away. Returns its new place; `None` when it was not there.
    pub(super) fn take(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let to = self.tmp.join(format!("trash-{}-{n}", self.process));
        match fs::rename(path, &to) {
            Ok(()) => Ok(Some(to)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("remove", path)(e)),
        }
    }
}

/// Removes what was moved away. What cannot be removed is left to the next start.
pub(super) fn remove(path: &Path) {
    let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(error = %e, "cannot remove what was deleted; the next start tries again");
        }
        _ => {}
    }
}
