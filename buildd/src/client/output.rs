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
    /// A directory with an OCI layout that blobs are added to, over the content service.
    Layout(PathBuf),
}

/// A destination opened for one build.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Stdout,
    File(Arc<FileTarget>),
    Directory(PathBuf),
}

/// A file that appears, or changes, when all is written. Devices and pipes are written as they are.
#[derive(Debug)]
pub(crate) struct FileTarget {
    path: PathBuf,
    open: Mutex<Option<Open>>,
}

/// What is written to.
#[derive(Debug)]
enum Open {
    /// A file beside the destination.
    Beside(NamedTempFile),
    /// The destination, which is no regular file: nothing may take its place.
    Itself(File),
}

impl Target {
    /// Prepares a destination, so that one that cannot be written fails before the build.
    pub(super) fn open(destination: &Destination) -> Result<Option<Self>, ClientError> {
        Ok(match destination {
            Destination::None | Destination::Layout(_) => None,
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
            Self::File(file) => (&**file).write_all(data),
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
    /// Prepares to write `path`.
    ///
    /// # Errors
    /// A directory, or one that cannot be written to.
    pub(crate) fn new(path: &Path) -> Result<Self, ClientError> {
        let failed = |e| ClientError::io(path, e);
        let place = match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
            Ok(found) if !found.is_file() => {
                let file = std::fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
                return Ok(Self { path: path.to_owned(), open: Mutex::new(Some(Open::Itself(file))) });
            }
            // A link stays, and what it leads to changes.
            Ok(_) => fs::canonicalize(path).map_err(failed)?,
            Err(_) => path.to_owned(),
        };
        let dir = match place.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(failed)?;
        Ok(Self { path: place, open: Mutex::new(Some(Open::Beside(temporary))) })
    }

    /// Calls `f` with the descriptor, to hand it to the daemon.
    pub(super) fn with_fd<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        self.with(|file| f(file.as_fd()))
    }

    fn with<T>(&self, f: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let mut guard = self.open.lock().map_err(|_| io::Error::other("a writer panicked"))?;
        match guard.as_mut().ok_or(io::ErrorKind::BrokenPipe)? {
            Open::Beside(file) => f(file.as_file_mut()),
            Open::Itself(file) => f(file),
        }
    }

    fn take(&self) -> Option<Open> {
        self.open.lock().ok().and_then(|mut guard| guard.take())
    }

    /// Makes the file appear.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub(crate) fn commit(&self) -> Result<(), ClientError> {
        match self.take() {
            Some(Open::Beside(file)) => {
                file.persist(&self.path).map(drop).map_err(|e| ClientError::io(&self.path, e.error))
            }
            Some(Open::Itself(_)) | None => Ok(()),
        }
    }
}

impl io::Write for &FileTarget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with(|file| file.flush())
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
    fn devices_and_links_stay() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        let file = dir.path().join("file");
        std::fs::write(&file, "old").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("file", &link).unwrap();
        for path in [&pipe, &link] {
            let target = Target::open(&Destination::File(path.clone())).unwrap().unwrap();
            target.write(&"data".into()).unwrap();
            target.commit().unwrap();
        }
        assert_eq!(reader.join().unwrap(), b"data");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"data");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
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
