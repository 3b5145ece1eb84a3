//! Looking into the mounts of a container while processes may be writing to them.
//!
//! Layers are mounted anew for each look, read-only and attached nowhere: so what was written last is seen. Links are followed
//! as far as they stay below the mount's root, as BuildKit does; of one that leads elsewhere the client is told where.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use proto::fsutil::Stat;
use proto::gateway::{
    ReadDirRequest, ReadDirResponse, ReadFileRequest, ReadFileResponse, StatFileRequest, StatFileResponse,
};
use runner::overlay::mount_detached;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tonic::Code;

use super::Bridge;
use super::container::Container;
use super::read::{contents, wanted};
use crate::daemon::blocking::blocking;
use crate::daemon::failure::Failure;
use crate::daemon::mounting::Mounting;
use crate::daemon::worker::Shown;
use crate::fsutil::file_mode;

impl Bridge {
    pub(super) async fn read_file_container(
        &self,
        request: ReadFileRequest,
    ) -> Result<ReadFileResponse, Failure> {
        let look = self.look(&request.r#ref, request.mount_index)?;
        let data = blocking(move || look.file(&request)).await?;
        Ok(ReadFileResponse { data: data.into() })
    }

    pub(super) async fn read_dir_container(
        &self,
        request: ReadDirRequest,
    ) -> Result<ReadDirResponse, Failure> {
        let look = self.look(&request.r#ref, request.mount_index)?;
        let entries = blocking(move || look.directory(&request.dir_path, &request.include_pattern)).await?;
        Ok(ReadDirResponse { entries })
    }

    pub(super) async fn stat_file_container(
        &self,
        request: StatFileRequest,
    ) -> Result<StatFileResponse, Failure> {
        let look = self.look(&request.r#ref, request.mount_index)?;
        let stat = blocking(move || look.stat(&request.path)).await?;
        Ok(StatFileResponse { stat: Some(stat) })
    }

    fn look(&self, id: &str, index: i32) -> Result<Look, Failure> {
        let container = self.containers.get(id).ok_or_else(|| {
            Failure::new(Code::NotFound, format!("container details for {id}@{index} not found"))
        })?;
        let shown = container.shown(index)?;
        Ok(Look { shown, mounting: self.parts.mounting, _container: container })
    }
}

/// One look into a mount.
struct Look {
    shown: Shown,
    mounting: Mounting,
    /// Keeps its files meanwhile.
    _container: Arc<Container>,
}

/// Inside the mount, and nothing that would block.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

impl Look {
    fn root(&self) -> Result<OwnedFd, Failure> {
        match (&self.shown, self.mounting) {
            (Shown::Layers(overlay), Mounting::Overlay(way)) => {
                mount_detached(overlay, way).map_err(|e| Failure::invalid(&e))
            }
            (Shown::Layers(_), Mounting::Copy) => {
                Err(Failure::new(Code::Internal, "layers are copied here, not mounted"))
            }
            (Shown::Directory(dir), _) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(dir, flags, Mode::empty()).map_err(|e| failed("/", e))
            }
        }
    }

    fn file(&self, request: &ReadFileRequest) -> Result<Vec<u8>, Failure> {
        let (root, path) = (self.root()?, &request.file_path);
        // Looked at before it is opened: to open a device may do something.
        let found = open(&root, path, OFlags::PATH | OFlags::CLOEXEC)?;
        let stat = rustix::fs::fstat(&found).map_err(|e| failed(path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Failure::new(Code::InvalidArgument, format!("read {path}: not a regular file")));
        }
        let mut file = std::fs::File::from(open(&root, path, OPEN)?);
        contents(&mut file, path, request.range)
    }

    fn directory(&self, path: &str, pattern: &str) -> Result<Vec<Stat>, Failure> {
        let (root, wanted) = (self.root()?, wanted(pattern)?);
        let dir = open(&root, path, OPEN | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir).map_err(|e| failed(path, e))? {
            let entry = entry.map_err(|e| failed(path, e))?;
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if matches!(bytes, b"." | b"..") || wanted.as_ref().is_some_and(|w| !w.matches(bytes)) {
                continue;
            }
            match stat_at(&dir, name, &String::from_utf8_lossy(bytes)) {
                Ok(stat) => entries.push(stat),
                // Gone meanwhile.
                Err(Errno::NOENT) => {}
                Err(e) => return Err(failed(path, e)),
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    fn stat(&self, path: &str) -> Result<Stat, Failure> {
        let root = self.root()?;
        let name = path.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty());
        let name = name.unwrap_or("/");
        let relative = relative(path)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = rustix::fs::openat2(&root, relative, flags, Mode::empty(), INSIDE);
        let found = match found {
            Err(Errno::XDEV) => {
                rustix::fs::openat2(&root, relative, flags | OFlags::NOFOLLOW, Mode::empty(), INSIDE)
            }
            found => found,
        };
        let found = found.map_err(|e| failed(path, e))?;
        stat_at(&found, c"", name).map_err(|e| failed(path, e))
    }
}

/// A path of the request below the root.
fn relative(path: &str) -> Result<&str, Failure> {
    let bad = || Failure::new(Code::InvalidArgument, format!("can't make {path} relative to /"));
    match path.strip_prefix('/').ok_or_else(bad)?.trim_matches('/') {
        "" => Ok("."),
        relative => Ok(relative),
    }
}

fn open(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Failure> {
    rustix::fs::openat2(root, relative(path)?, flags, Mode::empty(), INSIDE).map_err(|e| failed(path, e))
}

/// The attributes of `name` in a directory, or of the object itself without one.
fn stat_at(dir: impl AsFd, name: &std::ffi::CStr, shown: &str) -> Result<Stat, Errno> {
    let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let linkname = match kind {
        FileType::Symlink => rustix::fs::readlinkat(&dir, name, Vec::new())?.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    Ok(Stat {
        path: shown.to_owned(),
        mode: file_mode(stat.st_mode),
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if kind == FileType::Directory { 0 } else { stat.st_size },
        mod_time: stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64,
        linkname,
        ..Stat::default()
    })
}

fn failed(path: &str, errno: Errno) -> Failure {
    let (code, why) = match errno {
        Errno::NOENT | Errno::NOTDIR => (Code::NotFound, "no such file or directory".to_owned()),
        Errno::XDEV | Errno::LOOP => (Code::Unknown, "path escapes from parent".to_owned()),
        errno => (Code::Unknown, std::io::Error::from(errno).to_string()),
    };
    Failure::new(code, format!("open {path}: {why}"))
}
