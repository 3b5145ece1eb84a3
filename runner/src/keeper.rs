//! A keeper: a small process that runs one sandbox after the other. It makes what a sandbox needs from outside, watches
//! over it, cleans up after it and reports. Its cgroups and network namespaces serve many sandboxes.
//!
//! With a monitored job it leaves the launcher's service: it becomes the monitor of that one sandbox, which outlives launcher
//! and daemon, and ends after it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::resource::{UsageWho, getrusage};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::cgroup::Cgroups;
use crate::child::{self, Sandbox};
use crate::error::{Doing, RunnerError};
use crate::exit::{Exit, ExitStatus, Usage};
use crate::job::{Birth, Event, Job, JobFds, Order};
use crate::names;
use crate::network::{self, Namespaces};
use crate::overlay;
use crate::socket;
use crate::spec::{RootFs, SandboxSpec, SecurityMode};
use crate::stubs::{self, Stub};
use crate::sys::process::{Fork, clone3, exit_now};

/// What a keeper tells the launcher when it is free again.
pub(crate) const IDLE: &[u8] = b"idle";
/// How the launcher hands over a job that is to outlive it; any other message is an ordinary one.
pub(crate) const MONITORED: &[u8] = b"monitored";

/// Serves jobs from the launcher until it closes its end. Never returns: the process is a fork.
pub(crate) fn serve(launcher: &OwnedFd) -> ! {
    let mut keeper = Keeper { cgroups: None, namespaces: Namespaces::default(), badness: leave_to_others() };
    while let Ok(Some(message)) = socket::receive(launcher.as_fd()) {
        let Some(fds) = JobFds::from_received(message.fds) else { continue };
        if message.bytes == MONITORED {
            keeper.monitor(fds);
        }
        keeper.serve_job(Some(launcher.as_fd()), &socket::from_memory(&fds.spec), fds);
        if socket::send(launcher.as_fd(), IDLE, &[]).is_err() {
            break;
        }
    }
    exit_now(0)
}

struct Keeper {
    cgroups: Option<Cgroups>,
    namespaces: Namespaces,
    /// The out-of-memory score that the launcher had, which commands get back.
    badness: i32,
}

/// The kernel's file for the out-of-memory score (proc_pid_oom_score_adj(5)).
const BADNESS: &str = "/proc/self/oom_score_adj";

/// Takes the keeper out of the kernel's choice when memory runs out, and returns the score that it had.
///
/// It shares its sandbox's memory cgroup: were it chosen, nobody could tell how the command ended. Without the
/// privilege (rootless) it stays as it is.
fn leave_to_others() -> i32 {
    let before = fs_err::read_to_string(BADNESS).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let _unprivileged = fs_err::write(BADNESS, "-1000");
    before
}

impl Keeper {
    /// Runs one sandbox as its monitor and ends. The launcher's socket stays open until then: so it knows whom to bury.
    fn monitor(mut self, mut fds: JobFds) -> ! {
        leave_the_daemon();
        let held = std::mem::take(&mut fds.held);
        let job = socket::from_memory(&fds.spec);
        self.serve_job(None, &job, fds);
        // Its links go with them.
        self.namespaces = Namespaces::default();
        drop(held);
        if let Some(cgroups) = &self.cgroups {
            cgroups.leave();
        }
        if let Ok(Job { network: Some(plan), .. }) = job {
            // Nobody is there to be told; the next daemon tries again.
            let _tried = network::tear_down(&plan.id);
        }
        exit_now(0)
    }

    /// Serves a job; without a launcher to watch it goes on when that ends.
    fn serve_job(&mut self, launcher: Option<BorrowedFd<'_>>, job: &std::io::Result<Job>, fds: JobFds) {
        let result = match job {
            Ok(job) => self.run(launcher, job, &fds),
            Err(error) => Err(RunnerError::Protocol { peer: "daemon".to_owned(), detail: error.to_string() }),
        };
        let JobFds { control, .. } = fds;
        if let Ok(bytes) = serde_json::to_vec(&Event::Done(result)) {
            // A daemon that has gone does not want to know.
            let _gone = socket::send(control.as_fd(), &bytes, &[]);
        }
        drop(control);
        if let Ok(job) = job {
            self.namespaces.settle(job.spec.network, job.spec.security == SecurityMode::Insecure);
        }
    }

    fn run(
        &mut self,
        launcher: Option<BorrowedFd<'_>>,
        job: &Job,
        fds: &JobFds,
    ) -> Result<Exit, RunnerError> {
        let spec = &job.spec;
        check(spec)?;
        let cgroups = self.cgroups.get_or_insert_with(|| Cgroups::new(&job.cgroup_parent));
        cgroups.apply(&spec.limits)?;
        let kills_before = cgroups.oom_kills();
        let names = names::files(spec)?;
        let root = open_root(spec)?;
        let network = self.namespaces.get(spec.network, job.network.as_ref())?;
        let (birth, birth_child) = socket::pair().doing(|| "create a socket pair")?;
        let usage_before = usage();
        let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        let (pid, pidfd) = match clone3(flags).doing(|| "clone the sandbox")? {
            Fork::Child => child::run(&Sandbox {
                spec,
                names: &names,
                root: matches!(spec.root, RootFs::Overlay(_)).then_some(root.as_fd()),
                network: network.map(AsFd::as_fd),
                stdin: fds.stdin.as_fd(),
                stdout: fds.stdout.as_fd(),
                stderr: fds.stderr.as_fd(),
                birth: birth_child.as_fd(),
                badness: spec.oom_score_adj.unwrap_or(self.badness),
            }),
            Fork::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop(birth_child);
        let mut watch = Watch {
            control: fds.control.as_fd(),
            launcher,
            birth: Some(birth),
            terminal: None,
            pid,
            pidfd,
            ended: Ended::default(),
        };
        let status = watch.until_end()?;
        let Ended { stubs, failure, orphaned } = watch.ended;
        stubs::remove(root.as_fd(), &stubs);
        drop(root);
        if let Some(error) = failure {
            return Err(error);
        }
        if orphaned {
            return Err(RunnerError::LauncherGone);
        }
        let oom_killed = self.cgroups.as_ref().is_some_and(|cgroups| cgroups.oom_kills() > kills_before);
        let warnings = names.warning.into_iter().collect();
        Ok(Exit { status, oom_killed, usage: difference(usage(), usage_before), warnings })
    }
}

/// Leaves the daemon's session and lets go of its log, so that nothing of it is held or killed with its group.
fn leave_the_daemon() {
    let _name = rustix::thread::set_name(c"rbuild-monitor");
    // A fork leads no group, and /dev/null is there, or a monitor's words go on into the log.
    let _session = rustix::process::setsid();
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _stdin = nix::unistd::dup2_stdin(&null);
        let _stdout = nix::unistd::dup2_stdout(&null);
        let _stderr = nix::unistd::dup2_stderr(&null);
    }
}

fn check(spec: &SandboxSpec) -> Result<(), RunnerError> {
    if spec.args.is_empty() {
        return Err(RunnerError::invalid("no program to run"));
    }
    if !spec.cwd.is_absolute() {
        return Err(RunnerError::invalid(format!(
            "working directory `{}` is not absolute",
            spec.cwd.display()
        )));
    }
    if let Some(mount) = spec.mounts.iter().find(|mount| !mount.target.is_absolute()) {
        return Err(RunnerError::invalid(format!(
            "mount target `{}` is not absolute",
            mount.target.display()
        )));
    }
    Ok(())
}

/// The mounted overlay, or the plain directory.
fn open_root(spec: &SandboxSpec) -> Result<OwnedFd, RunnerError> {
    match &spec.root {
        RootFs::Overlay(overlay) => overlay::mount_root(overlay, spec.overlays),
        RootFs::Directory(path) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, path, flags, Mode::empty())
                .doing(|| format!("open root `{}`", path.display()))
        }
    }
}

/// What was learnt about a sandbox while it ran.
#[derive(Default)]
struct Ended {
    stubs: Vec<Stub>,
    failure: Option<RunnerError>,
    orphaned: bool,
}

/// A running sandbox and everybody who may say something about it.
struct Watch<'a> {
    control: BorrowedFd<'a>,
    launcher: Option<BorrowedFd<'a>>,
    birth: Option<OwnedFd>,
    /// The master, until the command runs.
    terminal: Option<OwnedFd>,
    pid: Pid,
    pidfd: OwnedFd,
    ended: Ended,
}

impl Watch<'_> {
    /// Relays until the first process has ended; by then all others in its pid namespace are gone, too.
    fn until_end(&mut self) -> Result<ExitStatus, RunnerError> {
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
            Ok(Birth::Stubs(stubs)) => self.ended.stubs = stubs,
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

fn usage() -> Usage {
    let micros = |time: nix::sys::time::TimeVal| (time.tv_sec() as u64) * 1_000_000 + time.tv_usec() as u64;
    getrusage(UsageWho::RUSAGE_CHILDREN)
        .map(|usage| Usage {
            user_micros: micros(usage.user_time()),
            system_micros: micros(usage.system_time()),
        })
        .unwrap_or_default()
}

fn difference(after: Usage, before: Usage) -> Usage {
    Usage {
        user_micros: after.user_micros.saturating_sub(before.user_micros),
        system_micros: after.system_micros.saturating_sub(before.system_micros),
    }
}
