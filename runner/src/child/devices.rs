//! `/dev` of a sandbox.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use super::device_policy;
use super::filesystems::{INERT, attach, attach_at, fresh};
use super::mounts::{Workshop, attach_tree, clone_tree};
use crate::error::{Doing, RunnerError};
use crate::spec::{SandboxSpec, SecurityMode};
use crate::sys;

/// Name, major and minor number of the nodes every program expects.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Device nodes of the host, cloned while the host's tree is in view.
pub(super) struct HostDevices {
    /// The usual ones, when this process may not make nodes itself.
    usual: Vec<(&'static str, OwnedFd)>,
    /// Those the caller asked for.
    extra: Vec<(PathBuf, OwnedFd)>,
    /// The host's whole `/dev`, in insecure mode.
    all: Option<OwnedFd>,
}

/// Clones what will be needed of the host's devices.
pub(super) fn open_host(spec: &SandboxSpec, insecure: bool) -> Result<HostDevices, RunnerError> {
    let mut devices = HostDevices { usual: Vec::new(), extra: Vec::new(), all: None };
    if crate::overlay::in_user_namespace() {
        for (name, _, _) in NODES {
            let path = Path::new("/dev").join(name);
            let tree = clone_tree(CWD, &path).doing(|| format!("clone device `{}`", path.display()))?;
            devices.usual.push((name, tree));
        }
    }
    if insecure {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        devices.all = rustix::mount::open_tree(CWD, "/dev", flags).ok();
    }
    for device in &spec.devices {
        let action = || format!("clone device `{}`", device.host.display());
        let tree = clone_tree(CWD, &device.host).doing(action)?;
        if !device.writable {
            sys::mount::set_attributes(&tree, libc::MOUNT_ATTR_RDONLY, false).doing(action)?;
        }
        devices.extra.push((device.target.clone(), tree));
    }
    Ok(devices)
}

/// Mounts `/dev` with nodes, terminals, shared memory and message queues; gives a descriptor of it.
pub(super) fn mount_dev(
    root: BorrowedFd<'_>,
    spec: &SandboxSpec,
    host: &HostDevices,
    workshop: &Workshop,
) -> Result<OwnedFd, RunnerError> {
    let base = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let attributes = base | device_policy(spec.security == SecurityMode::Insecure);
    let dev = fresh("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes).doing(|| "create `/dev`")?;
    attach_at(root, "/dev", dev.as_fd())?;
    make_nodes(dev.as_fd(), host, workshop)?;
    if let Some(all) = &host.all {
        copy_host_nodes(dev.as_fd(), all.as_fd())?;
    }
    for (name, text) in LINKS {
        rustix::fs::symlinkat(text, &dev, name).doing(|| format!("create link `/dev/{name}`"))?;
    }
    let pts = terminals().doing(|| "create a devpts file system")?;
    place(dev.as_fd(), "pts", pts.as_fd())?;
    let size = spec.shm_size.to_string();
    let shm = fresh("tmpfs", &[("mode", "1777"), ("size", &size)], INERT).doing(|| "create `/dev/shm`")?;
    place(dev.as_fd(), "shm", shm.as_fd())?;
    let queues = fresh("mqueue", &[], INERT).doing(|| "create an mqueue file system")?;
    place(dev.as_fd(), "mqueue", queues.as_fd())?;
    for (target, tree) in &host.extra {
        attach_tree(root, target, tree.as_fd(), &mut Vec::new())?;
    }
    Ok(dev)
}

/// Each node is a mount of its own, from where devices may be opened; in `/dev` itself they may not.
fn make_nodes(dev: BorrowedFd<'_>, host: &HostDevices, workshop: &Workshop) -> Result<(), RunnerError> {
    for (name, major, minor) in NODES {
        let action = || format!("create device `/dev/{name}`");
        let made;
        let node = match host.usual.iter().find(|(usual, _)| *usual == name) {
            Some((_, tree)) => tree,
            None => {
                made = workshop.node(major, minor).doing(action)?;
                &made
            }
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let at = rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(0o666)).doing(action)?;
        attach(node.as_fd(), at.as_fd()).doing(action)?;
    }
    Ok(())
}

fn terminals() -> Result<OwnedFd, Errno> {
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    match fresh("devpts", &options, flags) {
        // Group 5, `tty`, is not mapped in this user namespace.
        Err(Errno::INVAL) => fresh("devpts", &options[..3], flags),
        other => other,
    }
}

fn place(dev: BorrowedFd<'_>, name: &str, mount: BorrowedFd<'_>) -> Result<(), RunnerError> {
    let action = || format!("attach `/dev/{name}`");
    rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755)).doing(action)?;
    let at = rustix::fs::openat(dev, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(action)?;
    attach(mount, at.as_fd()).doing(action)
}

/// Makes the nodes of the host's `/dev` (top level) here too.
fn copy_host_nodes(dev: BorrowedFd<'_>, host: BorrowedFd<'_>) -> Result<(), RunnerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let list = rustix::fs::openat(host, ".", flags, Mode::empty()).doing(|| "open the host's `/dev`")?;
    let entries = rustix::fs::Dir::new(list).doing(|| "list the host's `/dev`")?;
    for entry in entries {
        let entry = entry.doing(|| "list the host's `/dev`")?;
        let Ok(stat) = rustix::fs::statat(host, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        else {
            continue;
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let standard = entry.file_name() == c"console" || entry.file_name() == c"ptmx";
        if standard || !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            continue;
        }
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        match rustix::fs::mknodat(dev, entry.file_name(), kind, mode, stat.st_rdev) {
            // In a user namespace there are no nodes to be made; those the caller names are bound.
            Ok(()) | Err(Errno::EXIST | Errno::PERM) => {}
            Err(errno) => {
                return Err(RunnerError::os(
                    format!("create device `{}`", entry.file_name().to_string_lossy()),
                    errno,
                ));
            }
        }
    }
    Ok(())
}
