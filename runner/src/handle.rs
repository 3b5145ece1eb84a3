//! A running sandbox, as the daemon holds it, or the client of a container.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};

use crate::error::{Doing, RunnerError};
use crate::exit::Exit;
use crate::job::{Event, Order};
use crate::launcher::Stdio;
use crate::socket::{self, Received};
use crate::spec::ProcessSpec;

/// A sandbox that was started. Dropping it kills everything in the sandbox.
///
/// All methods may be called from any thread. For async callers: the descriptor of [`AsFd`] becomes readable when
/// there is something to learn; call [`SandboxHandle::try_wait`] then.
#[derive(Debug)]
pub struct SandboxHandle {
    control: OwnedFd,
    learnt: Mutex<Learnt>,
}

/// What the keeper has told so far.
#[derive(Debug, Default)]
struct Learnt {
    started: bool,
    terminal: Option<OwnedFd>,
    outcome: Option<Result<Exit, RunnerError>>,
}

impl SandboxHandle {
    /// A handle, and the other end of its socket for [`crate::Launcher::spawn_monitored`].
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn pair() -> Result<(Self, OwnedFd), RunnerError> {
        let (control, theirs) = socket::pair().doing(|| "create a socket pair")?;
        Ok((Self { control, learnt: Mutex::default() }, theirs))
    }

    /// Waits for the end: how the command ended, or why it could not be started. By then every process of the
    /// sandbox is gone, its mount points are removed and its overlay is unmounted.
    pub fn wait(&self) -> Result<Exit, RunnerError> {
        loop {
            if let Some(outcome) = self.learnt().outcome.clone() {
                return outcome;
            }
            // Not under the lock: others may kill meanwhile, or wait as well.
            self.wait_for_news()?;
        }
    }

    /// The outcome if it is known already.
    pub fn try_wait(&self) -> Option<Result<Exit, RunnerError>> {
        self.listen();
        self.learnt().outcome.clone()
    }

    /// Waits until the command runs; false when it never did, which [`Self::wait`] explains.
    pub fn started(&self) -> bool {
        loop {
            let learnt = self.learnt();
            if learnt.started || learnt.outcome.is_some() {
                return learnt.started;
            }
            drop(learnt);
            if self.wait_for_news().is_err() {
                return false;
            }
        }
    }

    /// Waits for the terminal of a sandbox that has one; gives its master once. None when the sandbox never started.
    pub fn terminal(&self) -> Option<OwnedFd> {
        self.started().then(|| self.learnt().terminal.take()).flatten()
    }

    fn wait_for_news(&self) -> Result<(), RunnerError> {
        let mut ready = [rustix::event::PollFd::new(&self.control, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(RunnerError::os("wait for the sandbox", errno)),
        }
        self.listen();
        Ok(())
    }

    /// Kills everything in the sandbox; the end is still to be waited for.
    pub fn kill(&self) {
        self.order(Order::Kill);
    }

    /// Sends a signal to the sandbox's first process. Like every pid 1 it ignores what it does not handle.
    pub fn signal(&self, number: i32) {
        self.order(Order::Signal(number));
    }

    /// Starts one more process in the sandbox, whose command has to run already ([`Self::started`]). It ends with its command, when
    /// the handle returned is dropped, or with the sandbox.
    ///
    /// Returns at once: what goes wrong from here on is told by [`Self::wait`] of the handle returned.
    ///
    /// # Errors
    /// When the sandbox has ended, or there are too many open files.
    pub fn join(&self, process: &ProcessSpec, stdio: &Stdio) -> Result<Self, RunnerError> {
        let (handle, control) = Self::pair()?;
        let memory = socket::to_memory(process).doing(|| "write the request")?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .doing(|| "open `/dev/null`")?;
        let [stdin, stdout, stderr] = stdio.or(null.as_fd());
        let bytes = serde_json::to_vec(&Order::Join).map_err(|e| RunnerError::invalid(e.to_string()))?;
        let fds = [memory.as_fd(), control.as_fd(), stdin, stdout, stderr];
        socket::send(self.control.as_fd(), &bytes, &fds).map_err(|_| RunnerError::KeeperGone)?;
        Ok(handle)
    }

    fn order(&self, order: Order) {
        if let Ok(bytes) = serde_json::to_vec(&order) {
            // A keeper that is gone has nothing left to kill.
            let _gone = socket::send(self.control.as_fd(), &bytes, &[]);
        }
    }

    /// Takes in all messages that are there.
    fn listen(&self) {
        let mut learnt = self.learnt();
        while learnt.outcome.is_none() {
            match socket::receive_now(self.control.as_fd()) {
                Ok(Some(message)) => learnt.take_in(message),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => learnt.outcome = Some(Err(RunnerError::KeeperGone)),
            }
        }
    }

    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        // Nothing is left half done when a thread panics here.
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Learnt {
    fn take_in(&mut self, message: Received) {
        match serde_json::from_slice(&message.bytes) {
            Ok(Event::Started) => {
                self.started = true;
                self.terminal = message.fds.into_iter().next();
            }
            Ok(Event::Done(outcome)) => self.outcome = Some(outcome),
            Err(error) => {
                let detail = error.to_string();
                self.outcome = Some(Err(RunnerError::Protocol { peer: "keeper".to_owned(), detail }));
            }
        }
    }
}

impl AsFd for SandboxHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

/// For reactors that know descriptors by number.
impl AsRawFd for SandboxHandle {
    fn as_raw_fd(&self) -> RawFd {
        self.control.as_raw_fd()
    }
}
