//! Creating and leaving processes.
#![expect(unsafe_code, reason = "fork, clone3, _exit and signal dispositions have no safe wrapper")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::Pid;

/// Which side of a fork returned.
pub(crate) enum Fork {
    /// We are the new process.
    Child,
    /// We made it.
    Parent {
        /// The new process, in our pid namespace.
        pid: Pid,
        /// A descriptor of it, readable once it has ended.
        pidfd: OwnedFd,
    },
}

/// Copies this process into new namespaces (`CLONE_NEW*` flags; none is a plain fork). With `CLONE_PARENT` the copy is
/// a sibling: a child of this process's parent, of which it is told as of this process (with SIGCHLD).
///
/// The caller must be single-threaded, or the child must not touch locks that another thread may hold:
/// the launcher and its keepers have one thread each.
pub(crate) fn clone3(flags: libc::c_int) -> io::Result<Fork> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: `clone_args` is plain data, for which all zeroes mean "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (flags as u32 as u64) | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    // A sibling takes its maker's; the kernel refuses another one.
    args.exit_signal = if flags & libc::CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 };
    // SAFETY: `args` outlives the call and its size is passed; without CLONE_VM and a stack the child runs
    // on its own copy of this one, exactly as after fork(2).
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        raw => {
            let pid = Pid::from_raw(raw as i32).expect("clone3 gives the parent a positive pid");
            // SAFETY: the kernel stored a fresh descriptor there that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent { pid, pidfd })
        }
    }
}

/// Ends the process without running destructors or exit handlers: those belong to the process copied from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Gives every signal its default action and unblocks all of them, as a program expects at its start.
pub(crate) fn reset_signals() {
    // SAFETY: all zeroes is SIG_DFL with an empty mask; errors (KILL, STOP, reserved numbers) do no harm.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        for signal in 1..=64 {
            libc::sigaction(signal, &raw const default, std::ptr::null_mut());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Ignores the signals by which terminals and service managers stop whole groups: the daemon decides when to end.
pub(crate) fn ignore_stop_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
        // SAFETY: SIG_IGN is a valid disposition for each of these.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
