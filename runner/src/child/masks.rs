//! Parts of proc and sysfs that a sandbox must not see or write.
//!
//! Everything is found through descriptors of the file systems just mounted, and covered with a node and a
//! directory just made, so nothing in the image (a link as `/proc`, a regular file as `/dev/null`) has a say.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use super::filesystems::{INERT, attach};
use super::mounts::Workshop;
use crate::error::{Doing, RunnerError};
use crate::sys;

const PROC_MASKED: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
const PROC_READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
const SYS_MASKED: [&str; 2] = ["firmware", "devices/virtual/powercap"];
const CPUS: &str = "devices/system/cpu";

/// Covers the masked paths and makes the read-only ones read-only.
pub(super) fn apply(
    proc: BorrowedFd<'_>,
    sysfs: BorrowedFd<'_>,
    dev: BorrowedFd<'_>,
    workshop: &Workshop,
) -> Result<(), RunnerError> {
    let covers = Covers {
        dev,
        directory: workshop.empty_dir().doing(|| "create an empty directory")?,
        used: false.into(),
    };
    for path in PROC_MASKED {
        covers.hide(proc, path).doing(|| format!("mask `/proc/{path}`"))?;
    }
    for path in SYS_MASKED {
        covers.hide(sysfs, path).doing(|| format!("mask `/sys/{path}`"))?;
    }
    hide_thermal(&covers, sysfs)?;
    for path in PROC_READ_ONLY {
        protect(proc, path).doing(|| format!("make `/proc/{path}` read-only"))?;
    }
    Ok(())
}

struct Covers<'fd> {
    dev: BorrowedFd<'fd>,
    directory: OwnedFd,
    used: std::cell::Cell<bool>,
}

impl Covers<'_> {
    fn hide(&self, base: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
        let target = match find(base, path) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let stat = rustix::fs::statat(&target, "", AtFlags::EMPTY_PATH)?;
        let cover = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.empty_directory()?,
            _ => clone_part(self.dev, "null", false)?,
        };
        attach(cover.as_fd(), target.as_fd())
    }

    /// The same read-only file system serves for all directories.
    fn empty_directory(&self) -> Result<OwnedFd, Errno> {
        if !self.used.replace(true) {
            return self.directory.try_clone().map_err(|_| Errno::MFILE);
        }
        clone_part(self.directory.as_fd(), "", false)
    }
}

fn hide_thermal(covers: &Covers<'_>, sysfs: BorrowedFd<'_>) -> Result<(), RunnerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(cpus) = rustix::fs::openat(sysfs, CPUS, flags, Mode::empty()) else { return Ok(()) };
    let entries = rustix::fs::Dir::read_from(&cpus).doing(|| "list the CPUs")?;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy();
        if name.strip_prefix("cpu").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()) && !n.is_empty()) {
            let path = format!("{CPUS}/{name}/thermal_throttle");
            covers.hide(sysfs, &path).doing(|| format!("mask `/sys/{path}`"))?;
        }
    }
    Ok(())
}

fn protect(base: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    let target = match find(base, path) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let tree = clone_part(target.as_fd(), "", true)?;
    let attributes: MountAttrFlags = INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
    sys::mount::set_attributes(&tree, attributes.bits().into(), true).map_err(|_| Errno::PERM)?;
    attach(tree.as_fd(), target.as_fd())
}

fn find(base: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(base, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn clone_part(base: BorrowedFd<'_>, path: &str, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(base, path, flags)
}
