//! The terminal of a sandbox: made in its own devpts, so that the command finds it there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::filesystems::attach;
use super::mounts::clone_tree;
use crate::error::{Doing, RunnerError};
use crate::spec::TerminalSize;

/// What statfs(2) says of a devpts file system (`DEVPTS_SUPER_MAGIC`).
const DEVPTS_MAGIC: rustix::fs::FsWord = 0x1cd1;

/// Opens a new terminal and shows it as `/dev/console`; gives the master.
pub(super) fn open(dev: BorrowedFd<'_>, size: TerminalSize) -> Result<OwnedFd, RunnerError> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat(dev, "pts/ptmx", flags, Mode::empty()).doing(|| "open a terminal")?;
    rustix::pty::unlockpt(&master).doing(|| "unlock the terminal")?;
    resize(&master, size)?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let console = rustix::fs::openat(dev, "console", create, Mode::from_raw_mode(0o600))
        .doing(|| "create `/dev/console`")?;
    // A fresh devpts numbers from 0 and this is its first terminal.
    let slave = clone_tree(dev, "pts/0".as_ref()).doing(|| "clone the terminal's node")?;
    attach(slave.as_fd(), console.as_fd()).doing(|| "show the terminal as `/dev/console`")?;
    Ok(master)
}

/// Opens one more terminal in a sandbox that runs; gives the master. What lies at the path is the sandbox's to say, so
/// only a terminal is taken.
pub(super) fn open_another(size: TerminalSize) -> Result<OwnedFd, RunnerError> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = rustix::fs::openat2(CWD, "/dev/pts/ptmx", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .doing(|| "open a terminal")?;
    let fs = rustix::fs::fstatfs(&master).doing(|| "check the terminal")?;
    if fs.f_type != DEVPTS_MAGIC {
        return Err(RunnerError::invalid("`/dev/pts` of the sandbox holds no terminals"));
    }
    rustix::io::ioctl_fionbio(&master, false).doing(|| "set up the terminal")?;
    rustix::pty::unlockpt(&master).doing(|| "unlock the terminal")?;
    resize(&master, size)?;
    Ok(master)
}

fn resize(master: &OwnedFd, size: TerminalSize) -> Result<(), RunnerError> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(master, size).doing(|| "size the terminal")
}

/// The sandbox's end of the terminal that [`open`] made. Called inside the new root.
pub(super) fn first() -> Result<OwnedFd, RunnerError> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open("/dev/pts/0", flags, Mode::empty()).doing(|| "open the terminal")
}

/// The sandbox's end of a terminal.
pub(super) fn other_end(master: &OwnedFd) -> Result<OwnedFd, RunnerError> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(master, flags).doing(|| "open the terminal's other end")
}

/// Makes a terminal this session's own and its stdin, stdout and stderr.
pub(super) fn take_over(slave: &OwnedFd, uid: u32) -> Result<(), RunnerError> {
    rustix::process::ioctl_tiocsctty(slave).doing(|| "make the terminal the session's own")?;
    rustix::fs::fchown(slave, Some(Uid::from_raw(uid)), None::<Gid>).doing(|| "hand over the terminal")?;
    nix::unistd::dup2_stdin(slave).doing(|| "connect stdin")?;
    nix::unistd::dup2_stdout(slave).doing(|| "connect stdout")?;
    nix::unistd::dup2_stderr(slave).doing(|| "connect stderr")
}
