//! Naming the descriptors that a process has, and closing those that it inherited.
#![expect(unsafe_code, reason = "close_range breaks the ownership of descriptors, so it is unsafe")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A path to what a descriptor of this process refers to, good as long as that is open.
pub(crate) fn path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Marks every descriptor from `first` on close-on-exec, so the program about to run sees none of them.
pub(crate) fn cloexec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes all descriptors from `first` on but `keep` (which must not be below `first`).
///
/// Only for a process just forked that never returns to the code which owns the descriptors.
pub(crate) fn close_all_but(first: u32, keep: u32) -> io::Result<()> {
    if keep > first {
        close_range(first, keep - 1, 0)?;
    }
    close_range(keep + 1, u32::MAX, 0)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: the callers are about to exec, or are forked copies that own no value wrapping these numbers.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
