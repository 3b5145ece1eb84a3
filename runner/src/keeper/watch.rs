//! What a keeper does while a sandbox runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use super::cradle::Cradle;
use super::process::Process;
use crate::child::Joining;
use crate::error::{Doing, RunnerError};
use crate::exit::{Exit, ExitStatus, Usage};
use crate::job::{Event, JobFds, Order};
use crate::socket;

/// A running sandbox and everybody who may say something about it.
pub(super) struct Watch<'a> {
    /// The sandbox's first process, and those that joined it.
    pub processes: Vec<Process>,
    pub launcher: Option<BorrowedFd<'a>>,
    /// The launcher has gone.
    pub orphaned: bool,
    pub entrance: Entrance<'a>,
}

/// What it takes to bring one more process in.
pub(super) struct Entrance<'a> {
    pub cradle: &'a Cradle,
    /// The sandbox's [`crate::job::Job`], in memory.
    pub job: BorrowedFd<'a>,
    pub badness: i32,
}

/// Something to look after; processes by their index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Orphaned,
    Ordered(usize),
    Born(usize),
    Ended(usize),
}

/// The sandbox's first process.
const FIRST: usize = 0;

impl Watch<'_> {
    /// Relays until the first process has ended; by then all others in its pid namespace are gone, too.
    pub(super) fn until_end(&mut self) -> Result<ExitStatus, RunnerError> {
        loop {
            let news = self.poll()?;
            for item in &news {
                match *item {
                    News::Orphaned => {
                        self.launcher = None;
                        self.orphaned = true;
                        self.processes[FIRST].kill();
                    }
                    News::Ordered(index) => self.obey(index),
                    News::Born(index) => self.processes[index].hear(),
                    News::Ended(_) => {}
                }
            }
            // The last ones first, so that the indices of the others stay.
            for item in news.iter().rev() {
                match *item {
                    News::Ended(FIRST) => return self.end(),
                    News::Ended(index) => bid_farewell(self.processes.swap_remove(index)),
                    _ => {}
                }
            }
        }
    }

    fn poll(&self) -> Result<Vec<News>, RunnerError> {
        let mut wanted: Vec<(News, BorrowedFd<'_>)> = Vec::new();
        wanted.extend(self.launcher.map(|fd| (News::Orphaned, fd)));
        for (index, process) in self.processes.iter().enumerate() {
            wanted.push((News::Ended(index), process.pidfd.as_fd()));
            wanted.extend(process.birth.as_ref().map(|fd| (News::Born(index), fd.as_fd())));
            wanted.extend(process.heeds.then(|| (News::Ordered(index), process.control.as_fd())));
        }
        let mut polled: Vec<PollFd<'_>> =
            wanted.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        loop {
            match rustix::event::poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(errno) => return Err(RunnerError::os("wait for the sandbox", errno)),
            }
        }
        let ready = wanted.iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        Ok(ready.map(|((news, _), _)| *news).collect())
    }

    /// Takes an order from whoever holds a process's handle.
    fn obey(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let (order, fds) = match socket::receive_now(process.control.as_fd()) {
            Ok(Some(message)) => (serde_json::from_slice(&message.bytes).unwrap_or(Order::Kill), message.fds),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Ok(None) | Err(_) => {
                process.heeds = false;
                (Order::Kill, Vec::new())
            }
        };
        match order {
            Order::Kill => process.kill(),
            Order::Signal(number) => process.signal(number),
            Order::Join => {
                let Some(fds) = JobFds::from_received(fds) else { return };
                match self.bring_in(&fds) {
                    Ok((birth, pid, pidfd)) => {
                        self.processes.push(Process::new(fds.control, birth, pid, pidfd));
                    }
                    Err(error) => tell_end(fds.control.as_fd(), Err(error)),
                }
            }
        }
    }

    /// Starts one more process in the sandbox; gives our end of its socket, and what it is.
    fn bring_in(&self, fds: &JobFds) -> Result<(OwnedFd, Pid, OwnedFd), RunnerError> {
        let first = &self.processes[FIRST];
        if !first.is_command() {
            // Its mount namespace may still show the host.
            return Err(RunnerError::invalid("the sandbox runs nothing that could be joined"));
        }
        let (birth, birth_child) = socket::pair().doing(|| "create a socket pair")?;
        let joining = Joining {
            job: self.entrance.job,
            process: fds.spec.as_fd(),
            stdin: fds.stdin.as_fd(),
            stdout: fds.stdout.as_fd(),
            stderr: fds.stderr.as_fd(),
            birth: birth_child.as_fd(),
            first: first.pidfd.as_fd(),
            badness: self.entrance.badness,
        };
        let cloned = self.entrance.cradle.clone_into(&joining)?;
        let (pid, pidfd) = cloned.ok_or(RunnerError::KeeperGone)?;
        Ok((birth, pid, pidfd))
    }

    /// The first process has ended, and with it all others. The kernel tells so only when those are reaped.
    fn end(&mut self) -> Result<ExitStatus, RunnerError> {
        for joined in self.processes.drain(FIRST + 1..) {
            joined.kill();
            bid_farewell(joined);
        }
        let first = &mut self.processes[FIRST];
        first.hear_all();
        first.reap()
    }
}

/// Tells how a process that joined the sandbox ended. It has ended, or is about to.
fn bid_farewell(mut process: Process) {
    process.hear_all();
    let status = process.reap();
    let outcome = match process.told.failure {
        Some(error) => Err(error),
        None => status.map(|status| Exit {
            status,
            oom_killed: false,
            forks_refused: false,
            usage: Usage::default(),
            warnings: process.told.warnings,
        }),
    };
    tell_end(process.control.as_fd(), outcome);
}

/// The last message about a process.
pub(super) fn tell_end(control: BorrowedFd<'_>, outcome: Result<Exit, RunnerError>) {
    if let Ok(bytes) = serde_json::to_vec(&Event::Done(outcome)) {
        // Whoever has gone does not want to know.
        let _gone = socket::send(control, &bytes, &[]);
    }
}
