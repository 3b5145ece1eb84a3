//! The cradle: the process of a keeper that sits in the limited cgroups and clones the sandboxes, which inherit them.
//!
//! The keeper itself stays outside. What the kernel does to a group that is out of memory (kill, fail page faults and
//! system calls) can hit the cradle, which has nothing to tell, but never the process that reports how a command ended.
//! The sandboxes are the keeper's own children (CLONE_PARENT), so it can wait for them. So are the processes that join one
//! later, which get the same limits for the same reason.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::child::{self, Bundle, Joining};
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

/// What goes with the descriptors of a request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Label {
    /// Those of a [`Bundle`], in the order of its fields.
    Sandbox { root: bool, network: bool, badness: i32 },
    /// Those of a [`Joining`], in the order of its fields.
    Joining { badness: i32 },
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
        let label = Label::Sandbox { root: root.is_some(), network: network.is_some(), badness };
        let fds: Vec<BorrowedFd<'_>> =
            [job, stdin, stdout, stderr, birth].into_iter().chain(root).chain(network).collect();
        self.ask(label, &fds)
    }

    /// As [`Self::clone_sandbox`], a process of a sandbox that runs.
    pub(super) fn clone_into(&self, joining: &Joining<'_>) -> Result<Option<(Pid, OwnedFd)>, RunnerError> {
        let Joining { job, process, stdin, stdout, stderr, birth, first, badness } = *joining;
        self.ask(Label::Joining { badness }, &[job, process, stdin, stdout, stderr, birth, first])
    }

    fn ask(&self, label: Label, fds: &[BorrowedFd<'_>]) -> Result<Option<(Pid, OwnedFd)>, RunnerError> {
        let bytes = serde_json::to_vec(&label).map_err(|e| RunnerError::invalid(e.to_string()))?;
        if socket::send(self.socket.as_fd(), &bytes, fds).is_err() {
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

/// Clones sandboxes until the keeper is gone, and ends the last one then. Never returns: the process is a fork.
fn serve(keeper: &OwnedFd) -> ! {
    // Its control sockets and namespaces are not for us to hold.
    let kept = sys::fds::close_all_but(3, std::os::fd::AsRawFd::as_raw_fd(keeper) as u32);
    let _name = rustix::thread::set_name(c"rbuild-cradle");
    if kept.is_err() {
        exit_now(1);
    }
    let mut guarded = None;
    while let Ok(Some(message)) = socket::receive(keeper.as_fd()) {
        let (answer, born) = match clone_one(message) {
            Ok(born) => (Ok(born.pid.as_raw_pid()), Some(born)),
            Err(error) => (Err(error), None),
        };
        let fds: Vec<BorrowedFd<'_>> = born.iter().map(|born| born.pidfd.as_fd()).collect();
        let sent = serde_json::to_vec::<Result<i32, RunnerError>>(&answer)
            .is_ok_and(|bytes| socket::send(keeper.as_fd(), &bytes, &fds).is_ok());
        guarded = born.filter(|born| born.first).map(|born| born.pidfd).or(guarded);
        if !sent {
            break;
        }
    }
    // The kernel kills it with its keeper, but not once it has executed a set-id program (PR_SET_PDEATHSIG(2const)).
    if let Some(sandbox) = guarded {
        let _over = rustix::process::pidfd_send_signal(&sandbox, Signal::KILL);
    }
    exit_now(0)
}

/// A process that was cloned.
struct Born {
    pid: Pid,
    pidfd: OwnedFd,
    /// The first of its sandbox, which ends with it.
    first: bool,
}

fn clone_one(message: Received) -> Result<Born, RunnerError> {
    let malformed = |detail: String| RunnerError::Protocol { peer: "keeper".to_owned(), detail };
    let label: Label = serde_json::from_slice(&message.bytes).map_err(|e| malformed(e.to_string()))?;
    let mut fds = message.fds.into_iter();
    let mut next = || fds.next().ok_or_else(|| malformed("a descriptor is missing".to_owned()));
    match label {
        Label::Sandbox { root, network, badness } => {
            let (job, stdin, stdout, stderr, birth) = (next()?, next()?, next()?, next()?, next()?);
            let root = if root { Some(next()?) } else { None };
            let network = if network { Some(next()?) } else { None };
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
                    badness,
                }),
                Fork::Parent { pid, pidfd } => Ok(Born { pid, pidfd, first: true }),
            }
        }
        Label::Joining { badness } => {
            let (job, process, stdin, stdout, stderr) = (next()?, next()?, next()?, next()?, next()?);
            let (birth, first) = (next()?, next()?);
            clone_joining(&Joining {
                job: job.as_fd(),
                process: process.as_fd(),
                stdin: stdin.as_fd(),
                stdout: stdout.as_fd(),
                stderr: stderr.as_fd(),
                birth: birth.as_fd(),
                first: first.as_fd(),
                badness,
            })
        }
    }
}

/// Clones a process into the pid namespace of a sandbox; the other namespaces it enters itself.
fn clone_joining(joining: &Joining<'_>) -> Result<Born, RunnerError> {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .doing(|| "open the helper's pidfd")?;
    nix::sched::setns(joining.first, CloneFlags::CLONE_NEWPID).doing(|| "enter the sandbox")?;
    let cloned = match clone3(libc::CLONE_PARENT) {
        Ok(Fork::Child) => child::join(joining),
        Ok(Fork::Parent { pid, pidfd }) => Ok(Born { pid, pidfd, first: false }),
        Err(error) => Err(error),
    };
    if nix::sched::setns(&own, CloneFlags::CLONE_NEWPID).is_err() {
        // The next sandbox would be cloned into this one.
        exit_now(1);
    }
    cloned.doing(|| "clone a process into the sandbox")
}
