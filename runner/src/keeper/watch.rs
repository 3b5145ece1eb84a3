//! What a keeper does while a sandbox runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::error::{Doing, RunnerError};
use crate::exit::ExitStatus;
use crate::job::{Birth, Event, Order};
use crate::socket;
use crate::stubs::Stub;

/// What was learnt about a sandbox while it ran.
#[derive(Default)]
pub(super) struct Ended {
    pub stubs: Vec<Stub>,
    pub warnings: Vec<String>,
    pub failure: Option<RunnerError>,
    /// The launcher has gone.
    pub orphaned: bool,
}

/// A running sandbox and everybody who may say something about it.
pub(super) struct Watch<'a> {
    pub control: BorrowedFd<'a>,
    pub launcher: Option<BorrowedFd<'a>>,
    /// Our end of the first process's socket, until it is the command.
    pub birth: Option<OwnedFd>,
    /// The master, until the command runs.
    pub terminal: Option<OwnedFd>,
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub ended: Ended,
}

impl Watch<'_> {
    /// Relays until the first process has ended; by then all others in its pid namespace are gone, too.
    pub(super) fn until_end(&mut self) -> Result<ExitStatus, RunnerError> {
        let mut watch_control = true;
        loop {
            let [ended, born, ordered, orphaned] = self.poll(watch_control)?;
            if ordered {
                watch_control = self.obey();
            }
            if orphaned {
                self.launcher = None;
                self.ended.orphaned = true;
                self.kill();
            }
            if born {
                self.hear();
            }
            if ended {
                while self.birth.is_some() {
                    self.hear();
                }
                return self.reap();
            }
        }
    }

    fn poll(&self, control: bool) -> Result<[bool; 4], RunnerError> {
        let wanted = [
            Some(self.pidfd.as_fd()),
            self.birth.as_ref().map(AsFd::as_fd),
            control.then_some(self.control),
            self.launcher,
        ];
        let mut polled: Vec<PollFd<'_>> =
            wanted.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        loop {
            match rustix::event::poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(errno) => return Err(RunnerError::os("wait for the sandbox", errno)),
            }
        }
        let mut results = polled.iter();
        Ok(wanted.map(|fd| fd.is_some() && results.next().is_some_and(|polled| !polled.revents().is_empty())))
    }

    /// Takes an order from the daemon; false when there will be no more.
    fn obey(&self) -> bool {
        let order = match socket::receive_now(self.control) {
            Ok(Some(message)) => serde_json::from_slice(&message.bytes).unwrap_or(Order::Kill),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
            Ok(None) | Err(_) => {
                self.kill();
                return false;
            }
        };
        match order {
            Order::Kill => self.kill(),
            Order::Signal(number) => {
                if let Ok(signal) = nix::sys::signal::Signal::try_from(number) {
                    // Not reaped yet, so the pid is still this process; it may be a zombie already.
                    let _ended =
                        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid.as_raw_pid()), signal);
                }
            }
        }
        true
    }

    /// The end of the first process is the end of its pid namespace.
    fn kill(&self) {
        // Fails only when it has ended already.
        let _ended = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Takes a message from the sandbox's first process; its end is closed when it has become the command.
    fn hear(&mut self) {
        let Some(birth) = &self.birth else { return };
        let message = match socket::receive(birth.as_fd()) {
            Ok(Some(message)) => message,
            Ok(None) | Err(_) => {
                self.birth = None;
                if self.ended.failure.is_none() {
                    self.tell_start();
                }
                return;
            }
        };
        match serde_json::from_slice(&message.bytes) {
            Ok(Birth::Built { stubs, warning }) => {
                self.ended.stubs = stubs;
                self.ended.warnings.extend(warning);
            }
            Ok(Birth::Terminal) => self.terminal = message.fds.into_iter().next(),
            Ok(Birth::Failed(error)) => self.ended.failure = Some(error),
            Err(error) => {
                let detail = error.to_string();
                self.ended.failure = Some(RunnerError::Protocol { peer: "sandbox".to_owned(), detail });
            }
        }
    }

    fn tell_start(&mut self) {
        let terminal = self.terminal.take();
        let fds: Vec<BorrowedFd<'_>> = terminal.iter().map(AsFd::as_fd).collect();
        if let Ok(bytes) = serde_json::to_vec(&Event::Started) {
            // Whoever has gone is noticed by its closed end.
            let _gone = socket::send(self.control, &bytes, &fds);
        }
    }

    fn reap(&self) -> Result<ExitStatus, RunnerError> {
        let waited =
            rustix::process::waitpid(Some(self.pid), WaitOptions::empty()).doing(|| "reap the sandbox")?;
        let (_, status) = waited.ok_or(RunnerError::KeeperGone)?;
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, signal) => ExitStatus::Signal(signal.unwrap_or(libc::SIGKILL)),
        })
    }
}
