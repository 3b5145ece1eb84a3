//! Running a command: LLB's ExecOp.

use std::sync::Arc;

/// A command and everything that its sandbox is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOp {
    /// Command, environment, user and limits.
    pub meta: ExecMeta,
    /// In the order given; one of them has `dest` `/`.
    pub mounts: Vec<Mount>,
    /// Which network the sandbox sees.
    pub network: NetMode,
    /// Confined or privileged.
    pub security: SecurityMode,
    /// Secrets handed over as environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// Devices by their CDI names.
    pub cdi_devices: Vec<CdiDevice>,
}

impl ExecOp {
    /// The mount at `/`, which every valid exec has.
    pub fn root_mount(&self) -> Option<&Mount> {
        self.mounts.iter().find(|m| m.dest == "/")
    }

    /// The mounts by their targets: their order does not show inside, as nested targets are mounted outside in.
    pub fn mounts_by_dest(&self) -> Vec<&Mount> {
        let mut sorted: Vec<&Mount> = self.mounts.iter().collect();
        sorted.sort_by(|a, b| a.dest.cmp(&b.dest));
        sorted
    }
}

/// What is run, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecMeta {
    /// argv; never empty.
    pub args: Vec<String>,
    /// `NAME=value`, in order; commands that follow each other share most of it.
    pub env: Arc<[Arc<str>]>,
    /// Absolute working directory.
    pub cwd: String,
    /// Docker's USER text: name or id, `:` and group; empty is root.
    pub user: String,
    /// Proxy variables, visible to the command only.
    pub proxy_env: Option<ProxyEnv>,
    /// Lines for /etc/hosts.
    pub extra_hosts: Vec<HostIp>,
    /// Empty: `buildkitsandbox`.
    pub hostname: String,
    /// Resource limits by name.
    pub ulimits: Vec<Ulimit>,
    /// A parent cgroup, or empty.
    pub cgroup_parent: String,
    /// Also remove the parents made for mount points.
    pub remove_mount_stubs_recursive: bool,
    /// Exit codes taken for success; empty: 0 only.
    pub valid_exit_codes: Vec<i32>,
}

/// Proxy settings of the caller; each may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyEnv {
    /// `HTTP_PROXY`.
    pub http_proxy: String,
    /// `HTTPS_PROXY`.
    pub https_proxy: String,
    /// `FTP_PROXY`.
    pub ftp_proxy: String,
    /// `NO_PROXY`.
    pub no_proxy: String,
    /// `ALL_PROXY`.
    pub all_proxy: String,
}

/// One line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIp {
    /// Host name.
    pub host: String,
    /// Its address.
    pub ip: String,
}

/// A resource limit such as `nofile`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Lower-case name without `RLIMIT_`.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// Which network a command sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetMode {
    /// Isolated, with NAT.
    #[default]
    Unset,
    /// The host's; needs an entitlement.
    Host,
    /// Loopback only.
    None,
}

/// How far a command is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecurityMode {
    /// Default capabilities, seccomp, masks.
    #[default]
    Sandbox,
    /// Privileged; needs an entitlement.
    Insecure,
}

/// A secret as an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretEnv {
    /// The secret's id.
    pub id: String,
    /// The variable's name.
    pub name: String,
    /// An absent secret gives an empty variable.
    pub optional: bool,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiDevice {
    /// CDI name.
    pub name: String,
    /// Absence is no error.
    pub optional: bool,
}

/// One mount of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Index into the vertex's inputs; `None` is scratch.
    pub input: Option<usize>,
    /// Path within the input; empty or `/` is all of it.
    pub selector: String,
    /// Where the command sees it: absolute.
    pub dest: String,
    /// Output index that the mount's changes become, if any.
    pub output: Option<usize>,
    /// No writes.
    pub readonly: bool,
    /// What is mounted.
    pub kind: MountKind,
    /// Another name for the result (LLB's resultID).
    pub result_id: String,
    /// Whether the content of a read-only input counts for the key.
    pub content_cache: MountContentCache,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// The input's files.
    Bind,
    /// A directory that lasts between builds.
    Cache(CacheMount),
    /// Memory; `size` in bytes, 0 is the kernel's default.
    Tmpfs {
        /// Bytes; 0 is the kernel's default.
        size: i64,
    },
    /// A secret as a file.
    Secret(SecretMount),
    /// The client's SSH agent.
    Ssh(SshMount),
}

/// A cache mount's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMount {
    /// The cache's name.
    pub id: String,
    /// How concurrent users share it.
    pub sharing: CacheSharing,
}

/// How concurrent users of a cache mount share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum CacheSharing {
    /// All see one directory.
    #[default]
    Shared,
    /// A second user gets a directory of its own.
    Private,
    /// A second user waits.
    Locked,
}

/// A secret file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretMount {
    /// The secret's id.
    pub id: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Absence is no error.
    pub optional: bool,
}

/// A forwarded SSH agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshMount {
    /// The agent's id; `default` mostly.
    pub id: String,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Absence is no error.
    pub optional: bool,
}

/// Whether a mount's input counts by content (BuildKit's MountContentCache).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountContentCache {
    /// As the mount's kind suggests.
    #[default]
    Default,
    /// Always.
    On,
    /// Never.
    Off,
}
