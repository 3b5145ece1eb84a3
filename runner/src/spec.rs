//! What a caller asks for: plain data, checked where it is used.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::overlay::{Overlay, Way};

/// Everything a sandbox is made of. [`SandboxSpec::new`] gives the defaults of a build step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Program and arguments; the program is looked up in `PATH` of `env` when it has no slash. Never empty.
    pub args: Vec<String>,
    /// The whole environment, `NAME=value` each; nothing is added.
    pub env: Vec<String>,
    /// Absolute working directory inside the sandbox. It must exist.
    pub cwd: PathBuf,
    /// Whom the program runs as.
    pub user: User,
    /// Host name in the sandbox's own UTS namespace, also in `/etc/hosts`.
    pub hostname: String,
    /// What `/` shows.
    pub root: RootFs,
    /// How layers are mounted here.
    pub overlays: Way,
    /// `/` cannot be written to (mounts on it still can).
    pub read_only_root: bool,
    /// In order; a later one may lie on an earlier one.
    pub mounts: Vec<Mount>,
    /// Which network the program sees.
    pub network: NetworkMode,
    /// How much it may do.
    pub security: SecurityMode,
    /// Set before the program starts; what is not listed is inherited from the daemon.
    pub rlimits: Vec<Rlimit>,
    /// Enforced through cgroups.
    pub limits: Limits,
    /// Likewise.
    pub share: Share,
    /// The cgroup that those of the sandbox lie in, a path from the tops of the hierarchies on without `.` and `..`; made where it is
    /// missing, and left. None is beside the daemon's own.
    pub cgroup_parent: Option<PathBuf>,
    /// Lines added to `/etc/hosts`: name, address.
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// What `/etc/resolv.conf` holds.
    pub dns: Dns,
    /// Size of `/dev/shm`, bytes.
    pub shm_size: u64,
    /// The program gets a terminal of its own, of this size, as stdin, stdout and stderr.
    pub tty: Option<TerminalSize>,
    /// Device nodes of the host to show besides the usual ones.
    pub devices: Vec<Device>,
    /// Added to the program's badness when memory runs out, −1000 to 1000. Lowering needs CAP_SYS_RESOURCE.
    pub oom_score_adj: Option<i32>,
}

impl SandboxSpec {
    /// A build step with the defaults: root user, `/`, isolated network, sandboxed, no limits.
    #[must_use]
    pub fn new(root: RootFs, args: Vec<String>) -> Self {
        Self {
            args,
            env: vec![format!("PATH={DEFAULT_PATH}")],
            cwd: PathBuf::from("/"),
            user: User::default(),
            hostname: DEFAULT_HOSTNAME.to_owned(),
            root,
            overlays: Way::default(),
            read_only_root: false,
            mounts: Vec::new(),
            network: NetworkMode::Isolated,
            security: SecurityMode::Sandbox,
            rlimits: Vec::new(),
            limits: Limits::default(),
            share: Share::default(),
            cgroup_parent: None,
            extra_hosts: Vec::new(),
            dns: Dns::default(),
            shm_size: DEFAULT_SHM_SIZE,
            tty: None,
            devices: Vec::new(),
            oom_score_adj: None,
        }
    }
}

/// One more process for a sandbox that runs ([`crate::SandboxHandle::join`]). Privileges, resource limits and what it sees are
/// the sandbox's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// As [`SandboxSpec::args`].
    pub args: Vec<String>,
    /// As [`SandboxSpec::env`].
    pub env: Vec<String>,
    /// As [`SandboxSpec::cwd`].
    pub cwd: PathBuf,
    /// As [`SandboxSpec::user`].
    pub user: User,
    /// As [`SandboxSpec::tty`].
    pub tty: Option<TerminalSize>,
}

/// The size of a terminal in characters; zeros where it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// `PATH` where neither image nor step sets one.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Host name of a build step that asks for no other.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// Size of `/dev/shm` where none is asked for: 64 MiB, in bytes.
pub const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// Resolved identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids: exactly these, none inherited.
    pub groups: Vec<u32>,
}

/// What `/` of the sandbox is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootFs {
    /// A plain directory of the host, written to directly.
    Directory(PathBuf),
    /// Layers, written to above them.
    Overlay(Overlay),
}

/// Something shown at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the sandbox. Symlinks in it are resolved inside the root. Made when missing, and then
    /// removed at the end with missing parents, unless the command put something there.
    pub target: PathBuf,
    /// What is shown.
    pub source: MountSource,
    /// Not writable through this mount.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A directory of the host (a cache, a context), or what `subpath` selects in it.
    Directory {
        /// Trusted: made by the daemon.
        path: PathBuf,
        /// Resolved with `path` as its root, so neither `..` nor symlinks lead out. Empty or `/`: all of it.
        subpath: PathBuf,
    },
    /// A directory or file of the host with the mounts below it, as docker's volumes are.
    Volume {
        /// Trusted: given by the user.
        path: PathBuf,
    },
    /// Stacked layers, or what `subpath` selects in them.
    Layers {
        /// With an upper directory the mount can be written to; the caller keeps or drops it.
        overlay: Overlay,
        /// As in [`MountSource::Directory`].
        subpath: PathBuf,
    },
    /// One file or socket of the host; trusted path.
    File {
        /// Where it lies.
        path: PathBuf,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Bytes; none is the kernel's default, half of the memory.
        size: Option<u64>,
        /// Permission bits; none takes those of the directory it covers, 1777 when there was none.
        mode: Option<u32>,
    },
    /// Bytes as a file in memory, never on disk.
    Secret {
        /// The content.
        data: Vec<u8>,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
}

/// Names what is shown; a secret's bytes never get into a log.
impl fmt::Debug for MountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path, subpath } => {
                write!(f, "Directory({} of {})", subpath.display(), path.display())
            }
            Self::Layers { overlay, subpath } => write!(f, "Layers({} of {overlay:?})", subpath.display()),
            Self::Volume { path } => write!(f, "Volume({})", path.display()),
            Self::File { path } => write!(f, "File({})", path.display()),
            Self::Tmpfs { size, mode } => write!(f, "Tmpfs({size:?} bytes, mode {mode:?})"),
            Self::Secret { uid, gid, mode, .. } => write!(f, "Secret({uid}:{gid} {mode:o})"),
        }
    }
}

/// Which network a sandbox sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// Its own, behind NAT. Refused where that cannot be had: never the host's instead.
    Isolated,
    /// Its own, with nothing but loopback.
    None,
    /// The host's. The caller checks the entitlement.
    Host,
}

/// How much a sandbox may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityMode {
    /// Docker's default capabilities, seccomp filter and masked paths.
    Sandbox,
    /// All of the daemon's capabilities and devices, no filter, no masks. The caller checks the entitlement.
    Insecure,
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Docker's name: `nofile`, `nproc`, `core`, …
    pub name: String,
    /// Soft limit; none is unlimited.
    pub soft: Option<u64>,
    /// Hard limit; none is unlimited.
    pub hard: Option<u64>,
}

/// What all processes of the sandbox together get of the machine, where it is not as for every other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Bytes of memory and swap together, not less than [`Limits::memory`]. Without it a sandbox whose memory is limited has no swap
    /// (cgroups of version 2) or any (version 1).
    pub memory_and_swap: Option<Swap>,
    /// Weight against others when processors are busy, 2 to 262,144; 1,024 is usual (Docker's `--cpu-shares`).
    pub cpu_shares: Option<u64>,
    /// Processors, such as `0-3,7`; empty for all.
    pub processors: String,
    /// Memory nodes, likewise.
    pub memory_nodes: String,
}

/// How much memory and swap together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Swap {
    /// Bytes.
    Bytes(u64),
    /// As much as there is.
    Unlimited,
}

impl Share {
    /// Whether it is as for every other.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Limits on all processes of the sandbox together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Thousandths of one CPU: 1500 is one and a half.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Limits {
    /// Whether there is nothing to enforce.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where `/etc/resolv.conf` comes from. What is empty here is taken from the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses of name servers.
    pub nameservers: Vec<IpAddr>,
    /// Domains to search.
    pub search: Vec<String>,
    /// Resolver options, `ndots:2`.
    pub options: Vec<String>,
}

/// A device node of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// On the host.
    pub host: PathBuf,
    /// In the sandbox.
    pub target: PathBuf,
    /// May be written to as well.
    pub writable: bool,
}
