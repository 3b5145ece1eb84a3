//! A process that a keeper needs for a network.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Signal, WaitId, WaitIdOptions};

/// A child of the keeper; killed and reaped when this is dropped.
#[derive(Debug)]
pub(super) struct Helper(OwnedFd);

impl Helper {
    /// The child that `pidfd` names.
    pub(super) fn new(pidfd: OwnedFd) -> Self {
        Self(pidfd)
    }

    /// Waits for its end; whether it exited with 0.
    pub(super) fn succeeded(self) -> bool {
        let status = rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED);
        matches!(status, Ok(Some(status)) if status.exit_status() == Some(0))
    }
}

impl AsFd for Helper {
    /// Readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // One that has ended is only reaped, and one that was waited for not even that.
        let _ended = rustix::process::pidfd_send_signal(&self.0, Signal::KILL);
        let _reaped = rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED);
    }
}
