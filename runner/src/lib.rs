//! Sandboxes and containers: launcher, mounts, namespaces, cgroups, seccomp, capabilities, network.
//!
//! # Who does what
//!
//! ```text
//! daemon ── Launcher ──(socket)── launcher process ──(socket)── keeper ──(socket)── cradle ──(clone3)── pid 1 = the command
//!    └────── SandboxHandle ───────────────(control socket)────────┘
//! ```
//!
//! | module | process | what it does |
//! |---|---|---|
//! | [`Launcher`] | daemon | starts the launcher, sends requests with descriptors |
//! | [`SandboxHandle`] | daemon | waits, kills, hands out the terminal |
//! | `launcher::serve` | launcher | gives each request to a free keeper, makes keepers; knows nothing of sandboxes |
//! | `keeper` | keeper, monitor | mounts the root, sets limits, watches, removes mount stubs, reports |
//! | `keeper::cradle` | cradle | is in the limited cgroups and clones the sandboxes, children of its keeper |
//! | `child` | sandbox | builds the file tree (or enters one that is built), drops privileges, becomes the command |
//! | `cgroup`, `network` | keeper | limits and network namespaces, kept from one sandbox to the next |
//! | [`overlay`] | any | detached overlay mounts |
//! | `resolve`, `stubs` | sandbox, keeper | mount targets inside a hostile root; their removal |
//! | `seccomp` | launcher | Docker's profile as BPF |
//! | [`rootless`] | daemon | becoming root of a user namespace |
//!
//! Life and death: a closed control socket (handle dropped, daemon dead) makes the keeper kill its sandbox; a closed
//! launcher socket ends idle keepers and kills the sandboxes of busy ones; a dead keeper takes its sandbox along
//! (PDEATHSIG), and the death of a sandbox's pid 1 is the death of all its processes. The keeper is in no limited
//! cgroup, so a sandbox that runs out of memory or processes cannot take along who reports it. Nothing is ever attached to
//! the host's mount table.
//!
//! A monitored sandbox ([`Launcher::spawn_monitored`]) outlives launcher and daemon: its keeper, now its monitor, heeds the control
//! socket only, whose other end is its user's, and removes its cgroup, its link and, when it is the last that shares it, the
//! firewall table.
//!
//! # What a host needs
//!
//! Linux 5.12 (mount_setattr); 6.7 and 6.13 mount overlays faster ([`overlay::Way`]). cgroups of version 1, 2 or a mix, to be
//! limited. For the isolated network `nft` and root, which turns IPv4 forwarding on and leaves it on, or without root `pasta`
//! and leave to open /dev/net/tun. `newuidmap`, `newgidmap` and 65,536 subordinate ids for [`rootless`].
//!
//! # Where it differs from Docker
//!
//! Device nodes that a step makes can be created, packed and inspected, but not opened: all its mounts are `nodev` where
//! Docker relies on a devices cgroup. The nodes of `/dev` are mounts of their own. A 64-bit value whose low half names a
//! refused socket family is refused, and `socketcall` is, too. No AppArmor profile is loaded or entered, as in BuildKit unless
//! it is told to: a step has the daemon's, `unconfined` on Debian. Mounts, and writes
//! below `/proc/sys` and `/sys`, are refused without one.

mod cgroup;
mod child;
mod error;
mod exit;
mod handle;
mod job;
mod keeper;
mod launcher;
mod names;
mod network;
pub mod overlay;
mod resolve;
pub mod rootless;
mod seccomp;
mod socket;
mod spec;
mod stubs;
mod sys;

pub use cgroup::{Support as CgroupSupport, Version as CgroupVersion, make_room};
pub use error::RunnerError;
pub use exit::{Exit, ExitStatus, Usage};
pub use handle::SandboxHandle;
pub use launcher::{Launcher, LauncherConfig, Monitored, Stdio, launcher_main};
pub use spec::{
    DEFAULT_HOSTNAME, DEFAULT_PATH, DEFAULT_SHM_SIZE, Device, Dns, Limits, Mount, MountSource, NetworkMode,
    ProcessSpec, Rlimit, RootFs, SandboxSpec, SecurityMode, Share, Swap, TerminalSize, User,
};
pub use sys::memory::share_heaps;
