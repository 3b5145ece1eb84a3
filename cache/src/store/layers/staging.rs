//! Where a layer is made before it is one.

use std::path::{Path, PathBuf};

use fs_err as fs;
use tempfile::TempDir;

use crate::store::error::StoreError;
use crate::store::layout::Layout;

/// A directory in the store's `tmp/`, removed when it is dropped.
#[derive(Debug)]
pub struct Staging(TempDir);

impl Staging {
    pub(super) fn create(layout: &Layout) -> Result<Self, StoreError> {
        let tmp = layout.tmp();
        let dir = tempfile::Builder::new().prefix("layer-").tempdir_in(&tmp);
        Ok(Self(dir.map_err(StoreError::io("create a directory in", &tmp))?))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes a subdirectory, as an overlay's `upper` and `work`.
    pub fn create_dir(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.0.path().join(name);
        fs::create_dir(&path).map_err(StoreError::io("create", &path))?;
        Ok(path)
    }
}

/// A snapshot directory that is complete and only needs its name.
#[derive(Debug)]
pub(super) struct Ready(TempDir);

impl Ready {
    /// Takes over `fs` and writes the encoded list of its entries beside it.
    pub(super) fn make(layout: &Layout, fs: &Path, entries: &[u8]) -> Result<Self, StoreError> {
        let tmp = layout.tmp();
        let dir = tempfile::Builder::new().prefix("snapshot-").tempdir_in(&tmp);
        let dir = dir.map_err(StoreError::io("create a directory in", &tmp))?;
        let list = dir.path().join("entries");
        fs_err::write(&list, entries).map_err(StoreError::io("write", &list))?;
        fs_err::rename(fs, dir.path().join("fs")).map_err(StoreError::io("take over", fs))?;
        Ok(Self(dir))
    }

    /// Moves it to its place.
    pub(super) fn rename(self, to: &Path) -> Result<(), StoreError> {
        fs_err::rename(self.0.path(), to).map_err(StoreError::io("create", to))?;
        let _moved = self.0.keep();
        Ok(())
    }
}
