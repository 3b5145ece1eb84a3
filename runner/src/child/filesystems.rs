//! proc, sysfs and cgroup file systems of a sandbox.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::error::{Doing, RunnerError};
use crate::resolve::{Kind, find_or_make};
use crate::sys;

/// No programs, devices or set-id bits.
pub(super) const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A new file system that is attached nowhere yet.
pub(super) fn fresh(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What `df` and `mount` show as the device.
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", kind)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(fs.as_fd(), *key)?;
        } else {
            rustix::mount::fsconfig_set_string(fs.as_fd(), *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches a detached mount on what `target` refers to.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// Attaches a mount on a directory of the image, which is made when missing and stays.
pub(super) fn attach_at(root: BorrowedFd<'_>, path: &str, mount: BorrowedFd<'_>) -> Result<(), RunnerError> {
    let at = |errno: Errno| RunnerError::MountTarget { target: path.into(), errno: errno.raw_os_error() };
    // Not noted as stubs: `dev`, `proc` and `sys` stay in the layer, as with every other builder.
    let target = find_or_make(root, Path::new(path), Kind::Directory, &mut Vec::new()).map_err(at)?;
    attach(mount, target.fd.as_fd()).map_err(at)
}

/// Mounts proc for the sandbox's own pid namespace.
pub(super) fn proc(root: BorrowedFd<'_>) -> Result<OwnedFd, RunnerError> {
    let mount = fresh("proc", &[], INERT).doing(|| "create a proc file system")?;
    attach_at(root, "/proc", mount.as_fd())?;
    Ok(mount)
}

/// The host's `/sys` with all below it, for [`sys()`].
pub(super) fn host_sys() -> Option<OwnedFd> {
    if !crate::overlay::in_user_namespace() {
        return None;
    }
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, "/sys", flags).ok()
}

/// Mounts sysfs, read-only unless `writable`, with the cgroup file systems in it.
///
/// In a user namespace that shares the host's network the kernel refuses a new one; then the host's is shown.
pub(super) fn sys(
    root: BorrowedFd<'_>,
    host: Option<OwnedFd>,
    writable: bool,
    share_host_net: bool,
) -> Result<OwnedFd, RunnerError> {
    let access = if writable { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    if let Some(tree) = host.filter(|_| share_host_net) {
        sys::mount::set_attributes(&tree, (INERT | MountAttrFlags::MOUNT_ATTR_RDONLY).bits().into(), true)
            .doing(|| "make `/sys` read-only")?;
        attach_at(root, "/sys", tree.as_fd())?;
        return Ok(tree);
    }
    let mount = fresh("sysfs", &[], INERT | access).doing(|| "create a sysfs file system")?;
    attach_at(root, "/sys", mount.as_fd())?;
    cgroups(mount.as_fd(), access)?;
    Ok(mount)
}

/// Shows the sandbox's own cgroups below `/sys/fs/cgroup`.
fn cgroups(sysfs: BorrowedFd<'_>, access: MountAttrFlags) -> Result<(), RunnerError> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP).doing(|| "unshare the cgroup namespace")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(point) = rustix::fs::openat(sysfs, "fs/cgroup", flags, Mode::empty()) else { return Ok(()) };
    let hierarchies = crate::cgroup::hierarchies()?;
    if let [only] = hierarchies.as_slice()
        && only.is_unified()
    {
        // Closed to us in some user namespaces; the sandbox only loses the view of it.
        let Ok(mount) = fresh("cgroup2", &[], INERT | access) else { return Ok(()) };
        return attach(mount.as_fd(), point.as_fd()).doing(|| "attach the cgroup2 mount");
    }
    let top =
        fresh("tmpfs", &[("mode", "755"), ("size", "64k")], INERT).doing(|| "create the cgroup directory")?;
    // First of all: nothing can be attached to a tree that is not attached itself (before 6.15).
    attach(top.as_fd(), point.as_fd()).doing(|| "attach the cgroup directory")?;
    for hierarchy in &hierarchies {
        let name = hierarchy.directory();
        let mount = match hierarchy.mount_options() {
            None => fresh("cgroup2", &[], INERT | access),
            Some(options) => {
                let options: Vec<_> =
                    options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                fresh("cgroup", &options, INERT | access)
            }
        };
        // A hierarchy may be gone or closed to us; the sandbox only loses the view of it.
        let Ok(mount) = mount else { continue };
        let make = |what: &str| format!("{what} cgroup directory `{name}`");
        rustix::fs::mkdirat(&top, &*name, Mode::from_raw_mode(0o755)).doing(|| make("create"))?;
        let at = rustix::fs::openat(&top, &*name, flags, Mode::empty()).doing(|| make("open"))?;
        attach(mount.as_fd(), at.as_fd()).doing(|| make("attach"))?;
    }
    sys::mount::set_attributes(&top, access.bits().into(), false)
        .doing(|| "make the cgroup directory read-only")?;
    Ok(())
}
