//! Where results of a build go on the client's side.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fs_err as fs;
use tempfile::NamedTempFile;

use super::ClientError;

/// One exporter of a build and where its result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `image`, `oci`, `docker`, `tar`, `local`, …
    pub kind: String,
    /// Settings for the daemon.
    pub attrs: BTreeMap<String, String>,
    /// Where the client puts what it is sent.
    pub destination: Destination,
}

/// Where the client puts what it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The result stays with the daemon, or goes to a registry.
    None,
    /// stdout.
    Stdout,
    /// A file, which appears when the build has succeeded.
    File(PathBuf),
    /// A directory; its other files stay.
    Directory(PathBuf),
}

/// A destination opened for one build.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Stdout,
    File(Arc<FileTarget>),
    Directory(PathBuf),
}

/// A file that is written beside its destination.
#[derive(Debug)]
pub(super) struct FileTarget {
    path: PathBuf,
    temporary: Mutex<Option<NamedTempFile>>,
}

impl Target {
    /// Prepares a destination, so that one that cannot be written fails before the build.
    pub(super) fn open(destination: &Destination) -> Result<Option<Self>, ClientError> {
        Ok(match destination {
            Destination::None => None,
            Destination::Stdout => Some(Self::Stdout),
            Destination::File(path) => Some(Self::File(Arc::new(FileTarget::new(path)?))),
            Destination::Directory(path) => {
                fs::create_dir_all(path).map_err(|e| ClientError::io(path, e))?;
                Some(Self::Directory(path.clone()))
            }
        })
    }

    /// Appends to what is being written. Blocking.
    pub(super) fn write(&self, data: &Bytes) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().write_all(data),
            Self::File(file) => file.with(|file| file.write_all(data)),
            Self::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Makes the file appear.
    pub(super) fn commit(&self) -> Result<(), ClientError> {
        match self {
            Self::Stdout => Ok(io::stdout().flush()?),
            Self::File(file) => file.commit(),
            Self::Directory(_) => Ok(()),
        }
    }
}

/// Destinations of one build. Temporary files that were not committed are gone when it is dropped, whoever still
/// holds a clone of their targets: tasks of the session end later, or never before the process does.
#[derive(Debug, Default)]
pub(super) struct Targets(pub(super) Vec<Option<Target>>);

impl Drop for Targets {
    fn drop(&mut self) {
        for target in self.0.iter().flatten() {
            if let Target::File(file) = target {
                drop(file.take());
            }
        }
    }
}

impl FileTarget {
    fn new(path: &Path) -> Result<Self, ClientError> {
        if path.is_dir() {
            return Err(ClientError::io(path, io::ErrorKind::IsADirectory.into()));
        }
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(|e| ClientError::io(path, e))?;
        Ok(Self { path: path.to_owned(), temporary: Mutex::new(Some(temporary)) })
    }

    /// Calls `f` with the descriptor, to hand it to the daemon.
    pub(super) fn with_fd<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        self.with(|file| f(file.as_fd()))
    }

    fn with<T>(&self, f: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let mut guard = self.temporary.lock().map_err(|_| io::Error::other("a writer panicked"))?;
        let file = guard.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        f(file.as_file_mut())
    }

    fn take(&self) -> Option<NamedTempFile> {
        self.temporary.lock().ok().and_then(|mut guard| guard.take())
    }

    fn commit(&self) -> Result<(), ClientError> {
        match self.take() {
            Some(file) => {
                file.persist(&self.path).map(drop).map_err(|e| ClientError::io(&self.path, e.error))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_only_when_committed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        let destination = Destination::File(path.clone());
        let target = Target::open(&destination).unwrap().unwrap();
        target.write(&"data".into()).unwrap();
        assert!(!path.exists());
        drop(target);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let target = Target::open(&destination).unwrap().unwrap();
        target.write(&"data".into()).unwrap();
        target.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_build_leaves_no_file_while_others_hold_its_targets() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::open(&Destination::File(dir.path().join("out.tar"))).unwrap();
        let held = target.clone();
        drop(Targets(vec![target]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(held.unwrap().write(&"late".into()).is_err());
    }

    #[test]
    fn a_place_that_cannot_be_written_fails_at_once() {
        assert!(Target::open(&Destination::File("/nonexistent/dir/file".into())).is_err());
        assert!(Target::open(&Destination::File("/tmp".into())).is_err());
    }
}
