//! The cradle: the process of a keeper that sits in the limited cgroups and clones the sandboxes, which inherit them.
//!
//! The keeper itself stays outside. What the kernel does to a group that is out of memory (kill, fail page faults and
//! system calls) can hit the cradle, which has nothing to tell, but never the process that reports how a command ended.
//! The sandboxes are the keeper's own children (CLONE_PARENT), so it can wait for them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::child::{self, Bundle};
use crate::error::{Doing, RunnerError};
use crate::socket::{self, Received};
use crate::sys;
use crate::sys::process::{Fork, clone3, exit_now};

/// The keeper's hold on its cradle; dropping it ends the process.
#[derive(Debug)]
pub(super) struct Cradle {
    pid: Pid,
    socket: OwnedFd,
}

/// What goes with the descriptors of a [`Bundle`], which travel in the order of its fields.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Label {
    root: bool,
    network: bool,
    badness: i32,
}

impl Cradle {
    /// Forks the process. It is in the keeper's cgroups until somebody moves it.
    pub(super) fn start() -> Result<Self, RunnerError> {
        let (ours, theirs) = socket::pair().doing(|| "create a socket pair")?;
        match clone3(0).doing(|| "fork a keeper's helper")? {
            Fork::Child => serve(&theirs),
            Fork::Parent { pid, .. } => Ok(Self { pid, socket: ours }),
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Has a sandbox cloned; gives its pid and a descriptor of it, or none when the process is dead.
    pub(super) fn clone_sandbox(&self, bundle: &Bundle<'_>) -> Result<Option<(Pid, OwnedFd)>, RunnerError> {
        let Bundle { job, stdin, stdout, stderr, birth, root, network, badness } = *bundle;
        let label = Label { root: root.is_some(), network: network.is_some(), badness };
        let bytes = serde_json::to_vec(&label).map_err(|e| RunnerError::invalid(e.to_string()))?;
        let fds: Vec<BorrowedFd<'_>> =
            [job, stdin, stdout, stderr, birth].into_iter().chain(root).chain(network).collect();
        if socket::send(self.socket.as_fd(), &bytes, &fds).is_err() {
            return Ok(None);
        }
        let Ok(Some(answer)) = socket::receive(self.socket.as_fd()) else { return Ok(None) };
        let malformed = |detail: &str| RunnerError::Protocol {
            peer: "keeper's helper".to_owned(),
            detail: detail.to_owned(),
        };
        let pid: Result<i32, RunnerError> =
            serde_json::from_slice(&answer.bytes).map_err(|error| malformed(&error.to_string()))?;
        let pid = Pid::from_raw(pid?).ok_or_else(|| malformed("no pid"))?;
        let pidfd = answer.fds.into_iter().next().ok_or_else(|| malformed("no descriptor"))?;
        Ok(Some((pid, pidfd)))
    }
}

impl Drop for Cradle {
    fn drop(&mut self) {
        // Killed, not asked: it may be waiting for memory. Not reaped yet, so the pid is still its own.
        let _ended = rustix::process::kill_process(self.pid, Signal::KILL);
        let _reaped = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// Clones sandboxes until the keeper is gone. Never returns: the process is a fork.
fn serve(keeper: &OwnedFd) -> ! {
    // Its control sockets and namespaces are not for us to hold.
    let kept = sys::fds::close_all_but(3, std::os::fd::AsRawFd::as_raw_fd(keeper) as u32);
    let _name = rustix::thread::set_name(c"rbuild-cradle");
    // With the keeper die its sandboxes; none may be cloned after that.
    let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if kept.is_err() || bound.is_err() {
        exit_now(1);
    }
    while let Ok(Some(message)) = socket::receive(keeper.as_fd()) {
        let (answer, pidfd) = match clone_one(message) {
            Ok((pid, pidfd)) => (Ok(pid.as_raw_pid()), Some(pidfd)),
            Err(error) => (Err(error), None),
        };
        let fds: Vec<BorrowedFd<'_>> = pidfd.iter().map(AsFd::as_fd).collect();
        let sent = serde_json::to_vec::<Result<i32, RunnerError>>(&answer)
            .is_ok_and(|bytes| socket::send(keeper.as_fd(), &bytes, &fds).is_ok());
        if !sent {
            break;
        }
    }
    exit_now(0)
}

fn clone_one(message: Received) -> Result<(Pid, OwnedFd), RunnerError> {
    let malformed = |detail: String| RunnerError::Protocol { peer: "keeper".to_owned(), detail };
    let label: Label = serde_json::from_slice(&message.bytes).map_err(|e| malformed(e.to_string()))?;
    let mut fds = message.fds.into_iter();
    let mut next = || fds.next().ok_or_else(|| malformed("a descriptor is missing".to_owned()));
    let (job, stdin, stdout, stderr, birth) = (next()?, next()?, next()?, next()?, next()?);
    let root = if label.root { Some(next()?) } else { None };
    let network = if label.network { Some(next()?) } else { None };
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    match clone3(flags | libc::CLONE_PARENT).doing(|| "clone the sandbox")? {
        Fork::Child => child::run(&Bundle {
            job: job.as_fd(),
            stdin: stdin.as_fd(),
            stdout: stdout.as_fd(),
            stderr: stderr.as_fd(),
            birth: birth.as_fd(),
            root: root.as_ref().map(AsFd::as_fd),
            network: network.as_ref().map(AsFd::as_fd),
            badness: label.badness,
        }),
        Fork::Parent { pid, pidfd } => Ok((pid, pidfd)),
    }
}
