//! The launcher's program, out of reach of what it runs.
//!
//! A sandbox's first process is a copy of the launcher until it executes its command, and the command can be
//! `/proc/self/exe`: then a file of the host runs in the sandbox, whose root may change its mode, or its contents once nobody
//! executes it (CVE-2019-5736). So the launcher runs from a mount that nobody can write to, or from a copy.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::OpenTreeFlags;

use crate::error::{Doing, RunnerError};
use crate::sys;

/// What a launcher is executed from where its configuration names nothing else.
const OWN: &str = "/proc/self/exe";

/// A descriptor of `program`, or of this process's own, to execute.
pub(super) fn program(program: Option<&Path>) -> Result<OwnedFd, RunnerError> {
    let path = program.unwrap_or(Path::new(OWN));
    let file = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let file = file.doing(|| format!("open `{}`", path.display()))?;
    // A user namespace may have mounts of its own, in which the file has its name but the link leads elsewhere.
    let named = rustix::fs::readlinkat(CWD, OWN, Vec::new()).ok();
    let named = named.as_ref().and_then(|name| name.to_str().ok()).filter(|_| program.is_none());
    let names = [Some(path), named.map(Path::new)];
    if let Some(mount) = names.into_iter().flatten().find_map(|name| read_only(name, &file).ok()) {
        return Ok(mount);
    }
    copy(file).doing(|| format!("copy `{}` into memory", path.display()))
}

/// A mount of `path`, if that is `file`, that belongs to nobody's file tree.
fn read_only(path: &Path, file: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(CWD, path, flags)?;
    let (ours, theirs) = (rustix::fs::fstat(&mount)?, rustix::fs::fstat(file)?);
    if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    sys::mount::set_attributes(&mount, libc::MOUNT_ATTR_RDONLY, false)?;
    Ok(mount)
}

/// The bytes of `file` in memory, sealed.
fn copy(file: OwnedFd) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut memory = std::fs::File::from(rustix::fs::memfd_create("rbuild-launcher", flags)?);
    io::copy(&mut std::fs::File::from(file), &mut memory)?;
    rustix::fs::fchmod(&memory, Mode::from_raw_mode(0o500))?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(memory.as_fd(), seals)?;
    // To write to it was what it was opened for, and such a file is not executed.
    let path = sys::fds::path(memory.as_fd());
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use super::*;

    fn runs(program: &OwnedFd) -> bool {
        let path = sys::fds::path(program.as_fd());
        Command::new(path).status().unwrap().success()
    }

    #[test]
    fn a_copy_runs_and_cannot_be_changed() {
        let file = std::fs::File::open("/bin/true").unwrap();
        let copy = copy(file.into()).unwrap();
        assert!(runs(&copy));
        let path = sys::fds::path(copy.as_fd());
        let written = std::fs::OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(b"x"));
        assert!(written.is_err());
    }

    #[test]
    fn a_mount_runs_and_cannot_be_changed() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mount = program(Some(Path::new("/bin/true"))).unwrap();
        assert!(runs(&mount));
        let path = sys::fds::path(mount.as_fd());
        let refused =
            rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty());
        assert_eq!(refused, Err(rustix::io::Errno::ROFS));
    }
}
