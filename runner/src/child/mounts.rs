//! The mounts a caller asks for, and the place where a sandbox's tree is put together.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use super::device_policy;
use super::filesystems::{INERT, attach, fresh};
use crate::error::{Doing, RunnerError};
use crate::names::NameFiles;
use crate::overlay::{Way, mount_detached};
use crate::resolve::{Kind, find_or_make, open_in_root};
use crate::spec::{Mount, MountSource, SandboxSpec, SecurityMode};
use crate::stubs::Stub;
use crate::sys;

/// A file system in memory that only this sandbox's mount namespace has. It carries the mount points of the tree
/// under construction and the files that must not touch a disk, and goes away with the host's tree at pivot_root.
pub(super) struct Workshop {
    mount: OwnedFd,
    next: std::cell::Cell<u32>,
}

impl Workshop {
    /// Attaches it over `/tmp` as this namespace sees it: every host has that directory, and whatever lies
    /// below has been opened already.
    pub(super) fn new() -> Result<Self, RunnerError> {
        let mount = fresh("tmpfs", &[("mode", "700")], MountAttrFlags::MOUNT_ATTR_NOSUID)
            .doing(|| "create the workshop")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tmp = rustix::fs::open("/tmp", flags, Mode::empty()).doing(|| "open `/tmp`")?;
        attach(mount.as_fd(), tmp.as_fd()).doing(|| "attach the workshop")?;
        Ok(Self { mount, next: std::cell::Cell::new(0) })
    }

    /// Attaches the root file system; the descriptor given back is its root, inside this namespace.
    pub(super) fn attach_root(&self, root: OwnedFd) -> Result<OwnedFd, RunnerError> {
        self.attach_dir(root.as_fd()).doing(|| "attach the root file system")?;
        Ok(root)
    }

    /// Attaches a mount at a new directory, so that parts of it can be cloned.
    fn attach_dir(&self, mount: BorrowedFd<'_>) -> Result<(), Errno> {
        let name = self.name();
        rustix::fs::mkdirat(&self.mount, &*name, Mode::from_raw_mode(0o700))?;
        let at = rustix::fs::openat(&self.mount, &*name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        attach(mount, at.as_fd())
    }

    /// A mount of one file with this content.
    pub(super) fn file(&self, data: &[u8], uid: u32, gid: u32, mode: u32) -> Result<OwnedFd, Errno> {
        let name = self.name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.mount, &*name, flags, Mode::from_raw_mode(0o600))?;
        let mut rest = data;
        while !rest.is_empty() {
            let n = rustix::io::write(&file, rest)?;
            rest = &rest[n..];
        }
        if (uid, gid) != (0, 0) {
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        clone_mount(self.mount.as_fd(), &name)
    }

    /// A mount of one device node.
    pub(super) fn node(&self, major: u32, minor: u32) -> Result<OwnedFd, Errno> {
        let name = self.name();
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(&self.mount, &*name, FileType::CharacterDevice, mode, makedev(major, minor))?;
        clone_mount(self.mount.as_fd(), &name)
    }

    /// A mount of one empty directory.
    pub(super) fn empty_dir(&self) -> Result<OwnedFd, Errno> {
        fresh("tmpfs", &[("size", "4k"), ("mode", "755")], INERT | MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    fn name(&self) -> String {
        let n = self.next.get();
        self.next.set(n + 1);
        n.to_string()
    }
}

/// Clones the mount that shows `path`, from there on downwards, without mounts below it.
pub(super) fn clone_tree(at: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(at, path, flags)
}

/// Clones the mount that shows `path`, from there on downwards, with all mounts below it.
fn clone_all(path: &Path) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags)
}

fn clone_mount(at: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    clone_tree(at, Path::new(name))
}

/// Clones what an O_PATH descriptor refers to.
fn clone_descriptor(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(fd, "", flags)
}

/// A mount source as it was opened in the host's tree.
pub(super) enum Opened {
    /// Ready to attach.
    Tree(OwnedFd),
    /// An overlay from which a part will be selected.
    Overlay(OwnedFd),
    /// Made when it is attached.
    Later,
}

/// Opens all sources that lie on the host.
pub(super) fn open_sources(mounts: &[Mount], overlays: Way) -> Result<Vec<Opened>, RunnerError> {
    mounts.iter().map(|mount| open_source(mount, overlays)).collect()
}

fn open_source(mount: &Mount, overlays: Way) -> Result<Opened, RunnerError> {
    match &mount.source {
        MountSource::Directory { path, subpath } => open_below(path, subpath)
            .map(Opened::Tree)
            .map_err(|errno| missing(mount, &path.join(relative(subpath)), errno)),
        MountSource::File { path } => {
            clone_tree(CWD, path).map(Opened::Tree).map_err(|errno| missing(mount, path, errno))
        }
        MountSource::Volume { path } => {
            clone_all(path).map(Opened::Tree).map_err(|errno| missing(mount, path, errno))
        }
        MountSource::Layers { overlay, .. } => mount_detached(overlay, overlays).map(Opened::Overlay),
        MountSource::Tmpfs { .. } | MountSource::Secret { .. } => Ok(Opened::Later),
    }
}

fn open_below(path: &Path, subpath: &Path) -> Result<OwnedFd, Errno> {
    let base = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if relative(subpath).as_os_str().is_empty() {
        return clone_descriptor(base.as_fd());
    }
    clone_descriptor(open_in_root(base.as_fd(), subpath, OFlags::PATH)?.as_fd())
}

fn relative(subpath: &Path) -> &Path {
    subpath.strip_prefix("/").unwrap_or(subpath)
}

fn missing(mount: &Mount, source: &Path, errno: Errno) -> RunnerError {
    let (source_path, target) = (source.to_owned(), mount.target.clone());
    RunnerError::MountSource { source_path, target, errno: errno.raw_os_error() }
}

/// Attaches the caller's mounts in order.
pub(super) fn attach_all(
    root: BorrowedFd<'_>,
    spec: &SandboxSpec,
    sources: Vec<Opened>,
    workshop: &Workshop,
    stubs: &mut Vec<Stub>,
) -> Result<(), RunnerError> {
    let policy = device_policy(spec.security == SecurityMode::Insecure);
    for (mount, source) in spec.mounts.iter().zip(sources) {
        let access =
            if mount.read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        let attributes = policy | access;
        match &mount.source {
            MountSource::Tmpfs { size, mode } => {
                attach_tmpfs(root, mount, (*size, *mode), attributes, stubs)?
            }
            other => {
                let tree = ready(mount, other, source, workshop)?;
                restrict(mount, tree.as_fd(), attributes)?;
                attach_tree(root, &mount.target, tree.as_fd(), stubs)?;
            }
        }
    }
    Ok(())
}

/// Makes a source a detached tree that shows just what is asked for.
fn ready(
    mount: &Mount,
    source: &MountSource,
    opened: Opened,
    workshop: &Workshop,
) -> Result<OwnedFd, RunnerError> {
    match (source, opened) {
        (MountSource::Layers { subpath, .. }, Opened::Overlay(tree)) => {
            if relative(subpath).as_os_str().is_empty() {
                return Ok(tree);
            }
            workshop
                .attach_dir(tree.as_fd())
                .doing(|| format!("attach the layers for `{}`", mount.target.display()))?;
            open_in_root(tree.as_fd(), subpath, OFlags::PATH)
                .and_then(|selected| clone_descriptor(selected.as_fd()))
                .map_err(|errno| missing(mount, subpath, errno))
        }
        (MountSource::Secret { data, uid, gid, mode }, _) => workshop
            .file(data, *uid, *gid, *mode)
            .doing(|| format!("put the secret for `{}` into memory", mount.target.display())),
        (_, Opened::Tree(tree) | Opened::Overlay(tree)) => Ok(tree),
        (_, Opened::Later) => Err(RunnerError::invalid("a mount source was not opened")),
    }
}

fn restrict(mount: &Mount, tree: BorrowedFd<'_>, attributes: MountAttrFlags) -> Result<(), RunnerError> {
    let attributes = match mount.source {
        MountSource::Secret { .. } => attributes | INERT,
        _ => attributes,
    };
    let recursive = matches!(mount.source, MountSource::Volume { .. });
    sys::mount::set_attributes(tree, attributes.bits().into(), recursive)
        .doing(|| format!("set the attributes of mount `{}`", mount.target.display()))
}

/// Attaches a tree where the sandbox wants it, as a directory or as a file.
pub(super) fn attach_tree(
    root: BorrowedFd<'_>,
    target: &Path,
    tree: BorrowedFd<'_>,
    stubs: &mut Vec<Stub>,
) -> Result<(), RunnerError> {
    let at =
        |errno: Errno| RunnerError::MountTarget { target: target.to_owned(), errno: errno.raw_os_error() };
    let stat = rustix::fs::statat(tree, "", AtFlags::EMPTY_PATH).map_err(at)?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let kind = if is_dir { Kind::Directory } else { Kind::File };
    let found = find_or_make(root, target, kind, stubs).map_err(at)?;
    attach(tree, found.fd.as_fd()).map_err(at)
}

fn attach_tmpfs(
    root: BorrowedFd<'_>,
    mount: &Mount,
    (size, mode): (Option<u64>, Option<u32>),
    attributes: MountAttrFlags,
    stubs: &mut Vec<Stub>,
) -> Result<(), RunnerError> {
    let at =
        |errno: Errno| RunnerError::MountTarget { target: mount.target.clone(), errno: errno.raw_os_error() };
    let found = find_or_make(root, &mount.target, Kind::Directory, stubs).map_err(at)?;
    let mode = format!("{:o}", mode.or(found.previous_mode).unwrap_or(0o1777));
    let size = size.map(|bytes| bytes.to_string());
    let mut options = vec![("mode", mode.as_str())];
    options.extend(size.as_deref().map(|bytes| ("size", bytes)));
    let tree = fresh("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID | attributes).map_err(at)?;
    attach(tree.as_fd(), found.fd.as_fd()).map_err(at)
}

/// Shows `/etc/hosts` and `/etc/resolv.conf` read-only.
pub(super) fn bind_names(
    root: BorrowedFd<'_>,
    names: &NameFiles,
    workshop: &Workshop,
    stubs: &mut Vec<Stub>,
) -> Result<(), RunnerError> {
    for (path, text) in [("/etc/resolv.conf", &names.resolv_conf), ("/etc/hosts", &names.hosts)] {
        let tree = workshop.file(text.as_bytes(), 0, 0, 0o644).doing(|| format!("write `{path}`"))?;
        let attributes = INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
        sys::mount::set_attributes(&tree, attributes.bits().into(), false)
            .doing(|| format!("protect `{path}`"))?;
        attach_tree(root, &PathBuf::from(path), tree.as_fd(), stubs)?;
    }
    Ok(())
}
