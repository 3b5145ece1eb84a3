//! The terminal of a sandbox: made in its own devpts, so that the command finds it there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::termios::Winsize;

use super::filesystems::attach;
use super::mounts::clone_tree;
use crate::error::{Doing, RunnerError};
use crate::spec::TerminalSize;

/// Opens a new terminal and shows it as `/dev/console`; gives the master.
pub(super) fn open(dev: BorrowedFd<'_>, size: TerminalSize) -> Result<OwnedFd, RunnerError> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat(dev, "pts/ptmx", flags, Mode::empty()).doing(|| "open a terminal")?;
    rustix::pty::unlockpt(&master).doing(|| "unlock the terminal")?;
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).doing(|| "size the terminal")?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let console = rustix::fs::openat(dev, "console", create, Mode::from_raw_mode(0o600))
        .doing(|| "create `/dev/console`")?;
    // A fresh devpts numbers from 0 and this is its first terminal.
    let slave = clone_tree(dev, "pts/0".as_ref()).doing(|| "clone the terminal's node")?;
    attach(slave.as_fd(), console.as_fd()).doing(|| "show the terminal as `/dev/console`")?;
    Ok(master)
}

/// Makes the terminal this session's own and its stdin, stdout and stderr. Called inside the new root.
pub(super) fn take_over(uid: u32) -> Result<(), RunnerError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let slave = rustix::fs::open("/dev/pts/0", flags, Mode::empty()).doing(|| "open the terminal")?;
    rustix::process::ioctl_tiocsctty(&slave).doing(|| "make the terminal the session's own")?;
    rustix::fs::chownat(CWD, "/dev/pts/0", Some(Uid::from_raw(uid)), None::<Gid>, AtFlags::empty())
        .doing(|| "hand over the terminal")?;
    nix::unistd::dup2_stdin(&slave).doing(|| "connect stdin")?;
    nix::unistd::dup2_stdout(&slave).doing(|| "connect stdout")?;
    nix::unistd::dup2_stderr(&slave).doing(|| "connect stderr")
}
