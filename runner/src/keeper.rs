//! A keeper: a small process that runs one sandbox after the other. It makes what a sandbox needs from outside, watches
//! over it, cleans up after it and reports. Its cgroups and network namespaces serve many sandboxes.
//!
//! With a monitored job it leaves the launcher's service: it becomes the monitor of that one sandbox, which outlives launcher
//! and daemon, and ends after it.

mod cradle;
mod process;
mod watch;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Component;

use nix::sys::resource::{UsageWho, getrusage};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Pid;

use crate::cgroup::{Cgroups, Hits, Place};
use crate::child::Bundle;
use crate::error::{Doing, RunnerError};
use crate::exit::{Exit, Usage};
use crate::job::{Job, JobFds};
use crate::network::Namespaces;
use crate::overlay;
use crate::socket;
use crate::spec::{RootFs, SandboxSpec, SecurityMode};
use crate::stubs;
use crate::sys::process::exit_now;

use cradle::Cradle;
use process::{Process, Told};
use watch::{Entrance, Watch, tell_end};

/// What a keeper tells the launcher when it is free again.
pub(crate) const IDLE: &[u8] = b"idle";
/// How the launcher hands over a job that is to outlive it; any other message is an ordinary one.
pub(crate) const MONITORED: &[u8] = b"monitored";

/// Serves jobs from the launcher until it closes its end. Never returns: the process is a fork.
pub(crate) fn serve(launcher: &OwnedFd) -> ! {
    let mut keeper = Keeper { nursery: None, namespaces: Namespaces::default(), badness: leave_to_others() };
    while let Ok(Some(message)) = socket::receive(launcher.as_fd()) {
        let Some(fds) = JobFds::from_received(message.fds) else { continue };
        if message.bytes == MONITORED {
            keeper.monitor(fds);
        }
        keeper.serve_job(Some(launcher.as_fd()), &socket::from_memory(fds.spec.as_fd()), fds);
        if socket::send(launcher.as_fd(), IDLE, &[]).is_err() {
            break;
        }
    }
    // So that the launcher finds the cgroups empty.
    drop(keeper);
    exit_now(0)
}

struct Keeper {
    nursery: Option<Nursery>,
    namespaces: Namespaces,
    /// The out-of-memory score that the launcher had, which commands get back.
    badness: i32,
}

/// Where sandboxes are cloned, and the cgroups that they are cloned into.
struct Nursery {
    cradle: Cradle,
    cgroups: Cgroups,
    /// What its counters said before the sandbox that runs.
    counted: Hits,
}

impl Nursery {
    fn new(place: Place) -> Result<Self, RunnerError> {
        let cradle = Cradle::start()?;
        let cgroups = Cgroups::new(place, cradle.pid());
        Ok(Self { cradle, cgroups, counted: Hits::default() })
    }

    /// How often the sandbox that ended hit its limits.
    fn hits(&mut self) -> Hits {
        self.cgroups.hits().since(self.counted)
    }
}

/// The kernel's file for the out-of-memory score (proc_pid_oom_score_adj(5)).
const BADNESS: &str = "/proc/self/oom_score_adj";

/// Takes the keeper (and its cradle) out of the kernel's choice when memory runs out, and returns the score that it had.
///
/// Were it chosen, nobody could tell how the command ended. Without the privilege (rootless) it stays as it is.
fn leave_to_others() -> i32 {
    let before = fs_err::read_to_string(BADNESS).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let _unprivileged = fs_err::write(BADNESS, "-1000");
    before
}

impl Keeper {
    /// Runs one sandbox as its monitor and ends. The launcher's socket stays open until then: so it knows whom to bury.
    fn monitor(mut self, mut fds: JobFds) -> ! {
        leave_the_daemon();
        // The next one holds nothing of the daemon either.
        self.nursery = None;
        let held = std::mem::take(&mut fds.held);
        let job = socket::from_memory(fds.spec.as_fd());
        self.serve_job(None, &job, fds);
        // Its links go with them.
        self.namespaces = Namespaces::default();
        drop(held);
        self.nursery = None;
        if let Ok(Job { network: Some(plan), .. }) = job {
            // Nobody is there to be told; the next daemon tries again.
            let _tried = plan.tear_down();
        }
        exit_now(0)
    }

    /// Serves a job; without a launcher to watch it goes on when that ends.
    fn serve_job(&mut self, launcher: Option<BorrowedFd<'_>>, job: &std::io::Result<Job>, fds: JobFds) {
        let result = match job {
            Ok(job) => {
                let done = self.run(launcher, job, &fds);
                if is_special(&job.spec) {
                    // Whatever became of it: the next sandbox gets the usual, and nobody else's cgroup is kept busy.
                    self.nursery = None;
                }
                done
            }
            Err(error) => Err(RunnerError::Protocol { peer: "daemon".to_owned(), detail: error.to_string() }),
        };
        let JobFds { control, .. } = fds;
        tell_end(control.as_fd(), result);
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
        let root = open_root(spec)?;
        let network = self.namespaces.get(spec.network, job.network.as_ref())?;
        let (birth, birth_child) = socket::pair().doing(|| "create a socket pair")?;
        let usage_before = usage();
        let bundle = Bundle {
            job: fds.spec.as_fd(),
            stdin: fds.stdin.as_fd(),
            stdout: fds.stdout.as_fd(),
            stderr: fds.stderr.as_fd(),
            birth: birth_child.as_fd(),
            root: matches!(spec.root, RootFs::Overlay(_)).then_some(root.as_fd()),
            network: network.map(AsFd::as_fd),
            badness: self.badness,
        };
        // Before there is a process to watch.
        let control = fds.control.try_clone().doing(|| "duplicate a socket")?;
        let (pid, pidfd) = clone_into(&mut self.nursery, job, &bundle)?;
        drop(birth_child);
        let Some(Nursery { cradle, .. }) = &self.nursery else { return Err(RunnerError::KeeperGone) };
        let mut watch = Watch {
            processes: vec![Process::new(control, birth, pid, pidfd)],
            launcher,
            orphaned: false,
            entrance: Entrance { cradle, job: fds.spec.as_fd(), badness: self.badness },
        };
        let status = watch.until_end()?;
        let orphaned = watch.orphaned;
        let Told { stubs, failure, warnings } =
            watch.processes.pop().map(|first| first.told).unwrap_or_default();
        let Hits { oom_kills, refused_forks } = self.nursery.as_mut().map(Nursery::hits).unwrap_or_default();
        if oom_kills > 0 {
            // The kernel may take its time to free what the dead held: the next sandbox gets a new group.
            self.nursery = None;
        }
        stubs::remove(root.as_fd(), &stubs);
        drop(root);
        if let Some(error) = failure {
            return Err(error);
        }
        if orphaned {
            return Err(RunnerError::LauncherGone);
        }
        Ok(Exit {
            status,
            oom_killed: oom_kills > 0,
            forks_refused: refused_forks > 0,
            usage: difference(usage(), usage_before),
            warnings,
        })
    }
}

/// Whether no other sandbox fits into its cgroups.
fn is_special(spec: &SandboxSpec) -> bool {
    spec.cgroup_parent.is_some() || !spec.share.is_usual()
}

/// Clones the sandbox of a job under its limits.
fn clone_into(
    slot: &mut Option<Nursery>,
    job: &Job,
    bundle: &Bundle<'_>,
) -> Result<(Pid, OwnedFd), RunnerError> {
    if is_special(&job.spec) {
        *slot = None;
    }
    // A second time should the cradle have been killed since the last job.
    for _ in 0..2 {
        if slot.is_none() {
            let place = Place { own: job.cgroups.clone(), parent: job.spec.cgroup_parent.clone() };
            *slot = Some(Nursery::new(place)?);
        }
        let Some(nursery) = slot else { continue };
        nursery.cgroups.apply(&job.spec.limits)?;
        nursery.cgroups.share(&job.spec.limits, &job.spec.share)?;
        nursery.counted = nursery.cgroups.hits();
        if let Some(born) = nursery.cradle.clone_sandbox(bundle)? {
            return Ok(born);
        }
        *slot = None;
    }
    Err(RunnerError::KeeperGone)
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
    // The system calls take it for "as it is".
    if [spec.user.uid, spec.user.gid].contains(&u32::MAX) || spec.user.groups.contains(&u32::MAX) {
        return Err(RunnerError::invalid(format!("{} is no user or group", u32::MAX)));
    }
    if !spec.cwd.is_absolute() {
        return Err(RunnerError::invalid(format!(
            "working directory `{}` is not absolute",
            spec.cwd.display()
        )));
    }
    if let Some(parent) = &spec.cgroup_parent
        && !parent.components().all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(RunnerError::invalid(format!(
            "cgroup parent `{}` is no path downwards",
            parent.display()
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
