//! The first process of a sandbox: it builds the sandbox around itself and then becomes the command.

mod devices;
mod filesystems;
mod identity;
mod join;
mod masks;
mod mounts;
mod program;
mod terminal;

pub(crate) use identity::DEFAULT_CAPABILITIES;
pub(crate) use join::{Joining, join};

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::Signal;

use crate::error::{Doing, RunnerError, errno_of};
use crate::job::{Birth, Job};
use crate::names;
use crate::seccomp;
use crate::socket;
use crate::spec::{NetworkMode, RootFs, SandboxSpec, SecurityMode, User};
use crate::stubs::Stub;
use crate::sys;

/// What the keeper prepared for a sandbox.
#[derive(Debug)]
pub(crate) struct Bundle<'a> {
    /// The [`Job`], in memory.
    pub job: BorrowedFd<'a>,
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// To the keeper.
    pub birth: BorrowedFd<'a>,
    /// The mounted root, when it is an overlay.
    pub root: Option<BorrowedFd<'a>>,
    /// The network namespace to enter; none for the host's.
    pub network: Option<BorrowedFd<'a>>,
    /// Its out-of-memory score, unless the job has one.
    pub badness: i32,
}

/// Turns this process (pid 1 of fresh namespaces) into the command, or reports why not and ends.
pub(crate) fn run(bundle: &Bundle<'_>) -> ! {
    let Err(error) = become_command(bundle);
    tell(bundle.birth, &Birth::Failed(error), &[]).ok();
    sys::process::exit_now(1)
}

fn become_command(bundle: &Bundle<'_>) -> Result<Infallible, RunnerError> {
    let spec = begin(bundle.job, bundle.badness)?;
    enter_namespaces(&spec, bundle.network)?;
    let (stubs, warning) = build_tree(&spec, bundle)?;
    tell(bundle.birth, &Birth::Built { stubs, warning }, &[])?;
    match spec.tty {
        Some(_) => terminal::take_over(&terminal::first()?, spec.user.uid)?,
        None => connect_stdio([bundle.stdin, bundle.stdout, bundle.stderr], &spec.user)?,
    }
    let SandboxSpec { args, env, cwd, user, .. } = &spec;
    Role { args, env, cwd, user, sandbox: &spec }.assume()
}

/// How each process of a sandbox begins; gives the request of its sandbox. `badness` counts unless that says another.
fn begin(job: BorrowedFd<'_>, badness: i32) -> Result<SandboxSpec, RunnerError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing(|| "bind the sandbox to its keeper")?;
    let Job { spec, .. } = socket::from_memory(job).doing(|| "read the sandbox's request")?;
    rustix::process::umask(Mode::empty());
    rustix::process::setsid().doing(|| "start a session")?;
    identity::set_badness(spec.oom_score_adj.unwrap_or(badness))?;
    Ok(spec)
}

/// What the process becomes in the end.
struct Role<'a> {
    args: &'a [String],
    env: &'a [String],
    cwd: &'a Path,
    user: &'a User,
    /// The sandbox that it is in.
    sandbox: &'a SandboxSpec,
}

impl Role<'_> {
    /// Gives up what the command must not have and becomes it.
    fn assume(&self) -> Result<Infallible, RunnerError> {
        let insecure = self.sandbox.security == SecurityMode::Insecure;
        identity::set_rlimits(&self.sandbox.rlimits)?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        // Nothing but the three standard descriptors reaches the command, whatever this process still holds.
        sys::fds::cloexec_from(3).doing(|| "mark descriptors close-on-exec")?;
        let cwd = open_cwd(self.cwd);
        if !insecure {
            // Before capabilities go: without no_new_privs a filter needs CAP_SYS_ADMIN.
            sys::seccomp::install(seccomp::default_program()).doing(|| "install the seccomp filter")?;
        }
        identity::assume(self.user, insecure)?;
        enter_cwd(self.cwd, cwd)?;
        // The change of user cleared it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .doing(|| "bind the sandbox to its keeper")?;
        program::execute(self.args, self.env)
    }
}

fn tell(birth: BorrowedFd<'_>, message: &Birth, fds: &[BorrowedFd<'_>]) -> Result<(), RunnerError> {
    let bytes = serde_json::to_vec(message).map_err(|e| RunnerError::invalid(e.to_string()))?;
    socket::send(birth, &bytes, fds).doing(|| "report to the keeper")
}

fn enter_namespaces(spec: &SandboxSpec, network: Option<BorrowedFd<'_>>) -> Result<(), RunnerError> {
    if let Some(network) = network {
        nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET)
            .doing(|| "enter the network namespace")?;
    }
    rustix::system::sethostname(spec.hostname.as_bytes())
        .doing(|| format!("set the host name `{}`", spec.hostname))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .doing(|| "make mounts private")
}

/// Mounts everything and makes the result `/`. Gives what was made for mounts, and what the user should know.
fn build_tree(spec: &SandboxSpec, bundle: &Bundle<'_>) -> Result<(Vec<Stub>, Option<String>), RunnerError> {
    let insecure = spec.security == SecurityMode::Insecure;
    // While the host's tree is still in view.
    let names = names::files(spec)?;
    let sources = mounts::open_sources(&spec.mounts, spec.overlays)?;
    let host_devices = devices::open_host(spec, insecure)?;
    let root_mount = match (&spec.root, bundle.root) {
        (RootFs::Overlay(_), Some(fd)) => {
            fd.try_clone_to_owned().doing(|| "duplicate the root's descriptor")?
        }
        (RootFs::Overlay(_), None) => return Err(RunnerError::invalid("the overlay was not mounted")),
        (RootFs::Directory(path), _) => {
            mounts::clone_tree(CWD, path).doing(|| format!("clone `{}`", path.display()))?
        }
    };
    // The host's /sys may be needed where a fresh one is refused.
    let host_sys = filesystems::host_sys();
    let workshop = mounts::Workshop::new()?;
    let root = workshop.attach_root(root_mount)?;
    let mut stubs = Vec::new();

    let proc = filesystems::proc(root.as_fd())?;
    let dev = devices::mount_dev(root.as_fd(), spec, &host_devices, &workshop)?;
    let share_host_net = spec.network == NetworkMode::Host;
    let sys_mount = filesystems::sys(root.as_fd(), host_sys, insecure, share_host_net)?;
    if !insecure {
        masks::apply(proc.as_fd(), sys_mount.as_fd(), dev.as_fd(), &workshop)?;
    }
    mounts::bind_names(root.as_fd(), &names, &workshop, &mut stubs)?;
    mounts::attach_all(root.as_fd(), spec, sources, &workshop, &mut stubs)?;
    if let Some(size) = spec.tty {
        let master = terminal::open(dev.as_fd(), size)?;
        tell(bundle.birth, &Birth::Terminal, &[master.as_fd()])?;
    }
    let read_only =
        if spec.read_only_root { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    let attributes = device_policy(insecure) | read_only;
    sys::mount::set_attributes(&root, attributes.bits().into(), false)
        .doing(|| "restrict the root file system")?;
    change_root(root.as_fd())?;
    Ok((stubs, names.warning))
}

/// A sandbox may make device nodes, which images need; nodes that it made must not open the host's devices.
fn device_policy(insecure: bool) -> MountAttrFlags {
    if insecure { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV }
}

/// Makes the prepared tree `/` and lets go of the host's.
fn change_root(root: BorrowedFd<'_>) -> Result<(), RunnerError> {
    rustix::process::fchdir(root).doing(|| "enter the new root")?;
    rustix::process::pivot_root(".", ".").doing(|| "pivot to the new root")?;
    // `.` is the old root now, stacked on the new one.
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing(|| "unmount the host's tree")?;
    rustix::process::chdir("/").doing(|| "enter `/`")
}

fn connect_stdio(fds: [BorrowedFd<'_>; 3], user: &User) -> Result<(), RunnerError> {
    for fd in fds {
        identity::give_to(fd, user);
    }
    let [stdin, stdout, stderr] = fds;
    nix::unistd::dup2_stdin(stdin).doing(|| "connect stdin")?;
    nix::unistd::dup2_stdout(stdout).doing(|| "connect stdout")?;
    nix::unistd::dup2_stderr(stderr).doing(|| "connect stderr")
}

/// Opens the working directory. Magic links are refused: `/proc/self/fd/N` would lead to what this process still holds.
fn open_cwd(path: &Path) -> Result<OwnedFd, i32> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .map_err(|e| e.raw_os_error())
}

/// Enters it as the user, who may be the only one who can see it (a FUSE mount) or may not enter it at all.
fn enter_cwd(path: &Path, opened_as_root: Result<OwnedFd, i32>) -> Result<(), RunnerError> {
    let opened = open_cwd(path).or(opened_as_root);
    opened
        .and_then(|dir| rustix::process::fchdir(dir).map_err(|e| errno_of(&e.into())))
        .map_err(|errno| RunnerError::WorkingDirectory { path: path.to_owned(), errno })
}
