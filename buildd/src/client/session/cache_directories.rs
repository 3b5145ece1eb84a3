//! Directories that hold shared caches: the daemon asks, the client reads and writes, with its own rights and in its own file system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fs_err as fs;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use proto::rbuild::cache_directory_server::CacheDirectory;
use proto::rbuild::{
    CacheBytes, CacheObject, CacheObjectStat, ListedCacheObject, RemoveCacheObjectResponse, WriteCacheObject,
    WriteCacheObjectResponse,
};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

/// What a session tells that it offers.
pub(super) const METHODS: [&str; 6] = [
    "/rbuild.v1.CacheDirectory/Stat",
    "/rbuild.v1.CacheDirectory/Read",
    "/rbuild.v1.CacheDirectory/Write",
    "/rbuild.v1.CacheDirectory/Touch",
    "/rbuild.v1.CacheDirectory/List",
    "/rbuild.v1.CacheDirectory/Remove",
];

/// Bytes sent in one message.
const CHUNK: usize = 256 << 10;
/// Names sent before the transport takes them.
const BACKLOG: usize = 256;
/// Where objects are that are not whole yet, below the directory.
const TEMPORARY: &str = "tmp";

/// After so long an object that is not whole yet is one whose writer was killed.
const ABANDONED: Duration = Duration::from_hours(24);

/// The directories.
#[derive(Debug)]
pub(super) struct CacheDirectories {
    /// By the daemon's names for them.
    dirs: BTreeMap<String, PathBuf>,
    /// Those where what others left half done has been removed.
    tidied: Mutex<BTreeSet<PathBuf>>,
}

impl CacheDirectories {
    pub(super) fn new(dirs: BTreeMap<String, PathBuf>) -> Self {
        Self { dirs, tidied: Mutex::default() }
    }

    fn dir(&self, object: &CacheObject) -> Result<&Path, Status> {
        let dir = self.dirs.get(&object.store).map(PathBuf::as_path);
        dir.ok_or_else(|| Status::not_found(format!("no cache directory `{}`", object.store)))
    }

    /// Where an object is. No name leads out of the directory, but for links that its owner has put there.
    fn path(&self, object: &CacheObject) -> Result<PathBuf, Status> {
        if object.name.split('/').all(is_plain) && object.name.split('/').next() != Some(TEMPORARY) {
            return Ok(self.dir(object)?.join(&object.name));
        }
        Err(Status::invalid_argument(format!("`{}` cannot be an object's name", object.name)))
    }

    /// A file for an object that is not whole yet.
    async fn stage(&self, object: &CacheObject) -> Result<NamedTempFile, Status> {
        let dir = self.dir(object)?.join(TEMPORARY);
        let is_first = self.tidied.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.clone());
        blocking(move || {
            fs::create_dir_all(&dir)?;
            if is_first {
                tidy(&dir);
            }
            // A cache is shared: others may read it, as far as the process's mask lets them.
            let shared = std::fs::Permissions::from_mode(0o666);
            tempfile::Builder::new().permissions(shared).tempfile_in(&dir)
        })
        .await
    }
}

/// Whether a part of a name may be one.
fn is_plain(part: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain)
}

/// Removes what has been half done for long. What cannot be removed is somebody else's to remove.
fn tidy(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|found| found.modified()).map(|at| at.elapsed());
        if matches!(age, Ok(Ok(age)) if age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Runs something that waits for a disk, which may be at the other end of a network.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(status),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

#[tonic::async_trait]
impl CacheDirectory for CacheDirectories {
    type ReadStream = BoxStream<'static, Result<CacheBytes, Status>>;
    type ListStream = ReceiverStream<Result<ListedCacheObject, Status>>;

    async fn stat(&self, request: Request<CacheObject>) -> Result<Response<CacheObjectStat>, Status> {
        let path = self.path(request.get_ref())?;
        Ok(Response::new(blocking(move || Ok(stat(&fs::metadata(path)?))).await?))
    }

    async fn read(&self, request: Request<CacheObject>) -> Result<Response<Self::ReadStream>, Status> {
        let path = self.path(request.get_ref())?;
        let file = tokio::fs::File::open(&path).await.map_err(status)?;
        let bytes = ReaderStream::with_capacity(file, CHUNK);
        Ok(Response::new(bytes.map_ok(|data| CacheBytes { data }).map_err(status).boxed()))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteCacheObject>>,
    ) -> Result<Response<WriteCacheObjectResponse>, Status> {
        let mut messages = request.into_inner();
        let head = messages.message().await?;
        let Some(WriteCacheObject { object: Some(object), replace, data, size }) = head else {
            return Err(Status::invalid_argument("no object is named"));
        };
        let path = self.path(&object)?;
        let (file, temporary) = self.stage(&object).await?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        file.write_all(&data).await.map_err(status)?;
        let mut length = data.len() as u64;
        while let Some(WriteCacheObject { data, .. }) = messages.message().await? {
            file.write_all(&data).await.map_err(status)?;
            length += data.len() as u64;
        }
        file.flush().await.map_err(status)?;
        if length != size {
            return Err(Status::invalid_argument(format!(
                "`{}` ended after {length} of {size} bytes",
                object.name
            )));
        }
        let written = blocking(move || {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            match replace {
                true => temporary.persist(&path).map(|()| true).map_err(|e| e.error),
                false => match temporary.persist_noclobber(&path) {
                    Ok(()) => Ok(true),
                    Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                    Err(e) => Err(e.error),
                },
            }
        })
        .await?;
        Ok(Response::new(WriteCacheObjectResponse { written }))
    }

    async fn touch(&self, request: Request<CacheObject>) -> Result<Response<CacheObjectStat>, Status> {
        let path = self.path(request.get_ref())?;
        let touched = blocking(move || {
            // "Now" takes the right to write; any other time only the owner may set.
            let (now, follow) = (TimeSpec::UTIME_NOW, UtimensatFlags::FollowSymlink);
            utimensat(AT_FDCWD, &path, &now, &now, follow)?;
            Ok(stat(&fs::metadata(&path)?))
        });
        Ok(Response::new(touched.await?))
    }

    async fn list(&self, request: Request<CacheObject>) -> Result<Response<Self::ListStream>, Status> {
        let object = request.into_inner();
        let (root, top) = (self.dir(&object)?.to_owned(), self.path(&object)?);
        let (tx, rx) = tokio::sync::mpsc::channel(BACKLOG);
        tokio::task::spawn_blocking(move || {
            // What is called otherwise is somebody else's, such as what NFS leaves of files in use.
            let plain = |entry: &walkdir::DirEntry| {
                entry.depth() == 0 || entry.file_name().to_str().is_some_and(is_plain)
            };
            for entry in walkdir::WalkDir::new(top).into_iter().filter_entry(plain) {
                let listed = match entry {
                    // It went while the directory was read, or there is none at all.
                    Err(e) if e.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => continue,
                    Err(e) => Err(Status::unknown(e.to_string())),
                    Ok(entry) => match (entry.metadata(), entry.path().strip_prefix(&root)) {
                        (Ok(found), Ok(path)) if found.is_file() => Ok(ListedCacheObject {
                            name: path.to_string_lossy().into_owned(),
                            stat: Some(stat(&found)),
                        }),
                        _ => continue,
                    },
                };
                if tx.blocking_send(listed).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    async fn remove(
        &self,
        request: Request<CacheObject>,
    ) -> Result<Response<RemoveCacheObjectResponse>, Status> {
        let path = self.path(request.get_ref())?;
        let removed = blocking(move || match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(RemoveCacheObjectResponse {}),
        });
        Ok(Response::new(removed.await?))
    }
}

fn stat(found: &Metadata) -> CacheObjectStat {
    let since = found.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    CacheObjectStat { size: found.len(), modified_ms: since.map_or(0, |since| since.as_millis() as u64) }
}

fn status(error: io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::NotFound => Status::not_found(error.to_string()),
        io::ErrorKind::PermissionDenied => Status::permission_denied(error.to_string()),
        _ => Status::unknown(error.to_string()),
    }
}
