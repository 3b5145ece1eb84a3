//! A process of a sandbox, as its keeper sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitOptions};

use crate::error::{Doing, RunnerError};
use crate::exit::ExitStatus;
use crate::job::{Birth, Event};
use crate::socket;
use crate::stubs::Stub;

/// What a process told before it became the command.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub stubs: Vec<Stub>,
    pub warnings: Vec<String>,
    pub failure: Option<RunnerError>,
}

/// A child of the keeper, and whoever gives it orders.
#[derive(Debug)]
pub(super) struct Process {
    pub control: OwnedFd,
    /// There may be more orders.
    pub heeds: bool,
    /// Our end of its socket, until it is the command.
    pub birth: Option<OwnedFd>,
    /// The master, until the command runs.
    terminal: Option<OwnedFd>,
    pid: Pid,
    pub pidfd: OwnedFd,
    pub told: Told,
}

impl Process {
    pub(super) fn new(control: OwnedFd, birth: OwnedFd, pid: Pid, pidfd: OwnedFd) -> Self {
        let birth = Some(birth);
        Self { control, heeds: true, birth, terminal: None, pid, pidfd, told: Told::default() }
    }

    /// Whether it has become the command.
    pub(super) fn is_command(&self) -> bool {
        self.birth.is_none() && self.told.failure.is_none()
    }

    /// The end of a sandbox's first process is the end of its pid namespace.
    pub(super) fn kill(&self) {
        // Fails only when it has ended already.
        let _ended = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    pub(super) fn signal(&self, number: i32) {
        if let Ok(signal) = nix::sys::signal::Signal::try_from(number) {
            // Not reaped yet, so the pid is still this process; it may be a zombie already.
            let _ended = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid.as_raw_pid()), signal);
        }
    }

    /// Takes a message from it; its end is closed when it has become the command.
    pub(super) fn hear(&mut self) {
        let Some(birth) = &self.birth else { return };
        let message = match socket::receive(birth.as_fd()) {
            Ok(Some(message)) => message,
            Ok(None) | Err(_) => {
                self.birth = None;
                if self.told.failure.is_none() {
                    self.tell_start();
                }
                return;
            }
        };
        match serde_json::from_slice(&message.bytes) {
            Ok(Birth::Built { stubs, warning }) => {
                self.told.stubs = stubs;
                self.told.warnings.extend(warning);
            }
            Ok(Birth::Terminal) => self.terminal = message.fds.into_iter().next(),
            Ok(Birth::Failed(error)) => self.told.failure = Some(error),
            Err(error) => {
                let detail = error.to_string();
                self.told.failure = Some(RunnerError::Protocol { peer: "sandbox".to_owned(), detail });
            }
        }
    }

    /// Takes all messages of one that has ended.
    pub(super) fn hear_all(&mut self) {
        while self.birth.is_some() {
            self.hear();
        }
    }

    fn tell_start(&mut self) {
        let terminal = self.terminal.take();
        let fds: Vec<BorrowedFd<'_>> = terminal.iter().map(AsFd::as_fd).collect();
        if let Ok(bytes) = serde_json::to_vec(&Event::Started) {
            // Whoever has gone is noticed by its closed end.
            let _gone = socket::send(self.control.as_fd(), &bytes, &fds);
        }
    }

    /// Waits for its end.
    pub(super) fn reap(&self) -> Result<ExitStatus, RunnerError> {
        let waited =
            rustix::process::waitpid(Some(self.pid), WaitOptions::empty()).doing(|| "reap the sandbox")?;
        let (_, status) = waited.ok_or(RunnerError::KeeperGone)?;
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, signal) => ExitStatus::Signal(signal.unwrap_or(libc::SIGKILL)),
        })
    }
}
