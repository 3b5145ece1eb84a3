//! The daemon's side of the launcher process.

mod sealed;
mod serve;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio as ProcessStdio};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Doing, RunnerError};
use crate::handle::SandboxHandle;
use crate::job::Job;
use crate::network::{self, Network};
use crate::socket;
use crate::spec::{NetworkMode, SandboxSpec};
use crate::sys;

/// `argv[0]` of a launcher.
const PROCESS_NAME: &str = "rbuild-launcher";

/// All that a launcher sees of the daemon's environment: where programs and scratch directories are.
const KEPT_VARIABLES: [&str; 3] = ["PATH", "TMPDIR", "XDG_RUNTIME_DIR"];

/// What a launcher needs to know about its daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherConfig {
    /// Tells this daemon's cgroups, links and firewall table from those of others: a few lower-case letters and
    /// digits, the same at each start over the same state.
    pub id: String,
    /// The executable that calls [`launcher_main`] first thing; none is this one.
    pub program: Option<PathBuf>,
}

impl LauncherConfig {
    pub(crate) fn cgroups(&self) -> String {
        format!("rbuild-{}", self.id)
    }
}

/// Standard descriptors of a sandbox; none is `/dev/null`. With a terminal all three are ignored.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Read by the command.
    pub stdin: Option<OwnedFd>,
    /// Written by the command.
    pub stdout: Option<OwnedFd>,
    /// Written by the command; may be a duplicate of `stdout`, which keeps the order of what is written to both.
    pub stderr: Option<OwnedFd>,
}

impl Stdio {
    /// Duplicates all of them.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        let copy = |fd: &Option<OwnedFd>| fd.as_ref().map(OwnedFd::try_clone).transpose();
        Ok(Self { stdin: copy(&self.stdin)?, stdout: copy(&self.stdout)?, stderr: copy(&self.stderr)? })
    }

    /// All three, `null` in place of those that are none.
    pub(crate) fn or<'a>(&'a self, null: BorrowedFd<'a>) -> [BorrowedFd<'a>; 3] {
        [&self.stdin, &self.stdout, &self.stderr].map(|fd| fd.as_ref().map_or(null, AsFd::as_fd))
    }
}

/// What a sandbox is given that outlives its launcher: see [`Launcher::spawn_monitored`].
#[derive(Debug)]
pub struct Monitored {
    /// From [`SandboxHandle::pair`].
    pub control: OwnedFd,
    /// Kept open as long as the sandbox uses anything that it was given, whoever of the others still lives.
    pub alive: OwnedFd,
}

/// The helper process that starts sandboxes, so that the daemon with its threads and memory never forks.
///
/// Closing it (or the daemon's death) kills all its sandboxes but the monitored ones.
#[derive(Debug)]
pub struct Launcher {
    config: LauncherConfig,
    socket: Option<OwnedFd>,
    pidfd: OwnedFd,
    null: OwnedFd,
    network: Mutex<Option<Network>>,
}

impl Launcher {
    /// Starts the process, from this program or [`LauncherConfig::program`].
    pub fn start(config: LauncherConfig) -> Result<Self, RunnerError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if config.id.is_empty() || config.id.len() > 8 || !config.id.chars().all(allowed) {
            return Err(RunnerError::invalid(format!(
                "launcher id `{}` is not 1 to 8 of a-z and 0-9",
                config.id
            )));
        }
        // What an earlier launcher left if it was killed; not in the new one, which would race with the first sandbox.
        // What cannot be removed now is tried again at the next start.
        let _tried = network::tear_down(&config.id);
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .doing(|| "open `/dev/null`")?;
        let (ours, theirs) = socket::pair().doing(|| "create a socket pair")?;
        let pidfd = execute(&config, theirs)?;
        Ok(Self { config, socket: Some(ours), pidfd, null, network: Mutex::default() })
    }

    /// Starts a sandbox. Returns at once: what goes wrong from here on is told by [`SandboxHandle::wait`].
    pub fn spawn(&self, spec: &SandboxSpec, stdio: Stdio) -> Result<SandboxHandle, RunnerError> {
        let (handle, control) = SandboxHandle::pair()?;
        self.submit(serve::JOB, spec, &stdio, &[control.as_fd()])?;
        Ok(handle)
    }

    /// Starts a sandbox that outlives this launcher and the daemon: its keeper becomes its monitor, leaves their session
    /// and cleans up by itself. It ends with its command, when its handle is dropped, or with its monitor.
    ///
    /// Returns at once, as [`Self::spawn`].
    pub fn spawn_monitored(
        &self,
        spec: &SandboxSpec,
        stdio: Stdio,
        monitored: &Monitored,
    ) -> Result<(), RunnerError> {
        self.submit(serve::MONITORED, spec, &stdio, &[monitored.control.as_fd(), monitored.alive.as_fd()])
    }

    /// Sends a job. The first of `fds` is its control socket; the others it holds.
    fn submit(
        &self,
        kind: &[u8],
        spec: &SandboxSpec,
        stdio: &Stdio,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), RunnerError> {
        let network = match spec.network {
            NetworkMode::Isolated => Some(self.network()?),
            NetworkMode::None | NetworkMode::Host => None,
        };
        let (plan, share) = network.map_or((None, None), |Network { plan, share }| (Some(plan), share));
        let job = Job { spec: spec.clone(), network: plan, cgroups: self.config.cgroups() };
        let memory = socket::to_memory(&job).doing(|| "write the request")?;
        let [stdin, stdout, stderr] = stdio.or(self.null.as_fd());
        let (control, held) = fds.split_first().ok_or_else(|| RunnerError::invalid("no control socket"))?;
        let mut all = vec![memory.as_fd(), *control, stdin, stdout, stderr];
        all.extend(held);
        all.extend(share.as_ref().map(AsFd::as_fd));
        self.send(kind, &all)
    }

    /// Makes the host's side of the isolated network when the first sandbox wants it.
    fn network(&self) -> Result<Network, RunnerError> {
        let mut slot = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        let network = match &mut *slot {
            Some(network) => network,
            // The launcher removes it in the end: it outlives a daemon that is killed.
            none => none.insert(network::set_up(&self.config.id)?),
        };
        network.try_clone().doing(|| "share the firewall table")
    }

    fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), RunnerError> {
        let socket = self.socket.as_ref().ok_or(RunnerError::LauncherGone)?;
        socket::send(socket.as_fd(), message, fds).map_err(|_| RunnerError::LauncherGone)
    }

    /// Does ahead what the first sandbox with such a network would have to wait for, tens of milliseconds.
    pub fn prepare(&self, network: NetworkMode) -> Result<(), RunnerError> {
        match network {
            NetworkMode::Isolated => self.network().map(drop),
            NetworkMode::None | NetworkMode::Host => Ok(()),
        }
    }

    /// Readable once the launcher has died. Its sandboxes die with it; start another.
    #[must_use]
    pub fn death(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Launcher {
    /// Waits until the launcher has killed what still ran and cleaned up.
    fn drop(&mut self) {
        // Before the socket: the launcher removes the table when nobody shares it any more.
        *self.network.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        self.socket = None;
        let mut ended = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let patience = rustix::time::Timespec { tv_sec: 8, tv_nsec: 0 };
        // Whatever the reason for not waiting, there is nothing left to do.
        let _waited = rustix::event::poll(&mut ended, Some(&patience));
        let id = rustix::process::WaitId::PidFd(self.pidfd.as_fd());
        let flags = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG;
        let _reaped = rustix::process::waitid(id, flags);
    }
}

fn execute(config: &LauncherConfig, theirs: OwnedFd) -> Result<OwnedFd, RunnerError> {
    let program = sealed::program(config.program.as_deref())?;
    let text = serde_json::to_string(config).map_err(|e| RunnerError::invalid(e.to_string()))?;
    let child = Command::new(sys::fds::path(program.as_fd()))
        .arg0(PROCESS_NAME)
        .arg(text)
        .env_clear()
        .envs(KEPT_VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(ProcessStdio::from(theirs))
        .spawn()
        .doing(|| "start the launcher")?;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .doing(|| "open the launcher's pidfd")
}

/// Turns this process into a launcher if it was started as one; otherwise returns at once.
///
/// To be called first thing in `main` of every program that uses [`Launcher`].
pub fn launcher_main() {
    let mut args = std::env::args();
    if args.next().as_deref() == Some(PROCESS_NAME) {
        serve::executed(args.next());
    }
}
