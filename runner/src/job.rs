//! What travels with a request from daemon to launcher to keeper to the sandbox's first process.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::error::RunnerError;
use crate::exit::Exit;
use crate::network::NetworkPlan;
use crate::spec::SandboxSpec;
use crate::stubs::Stub;

/// A request as the daemon sends it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub spec: SandboxSpec,
    /// How to make an isolated network; present when the spec asks for one.
    pub network: Option<NetworkPlan>,
    /// Directory name below each controller that the daemon's cgroups lie in.
    pub cgroup_parent: String,
}

/// The descriptors that go with a [`Job`], in this order.
#[derive(Debug)]
pub(crate) struct JobFds {
    /// The [`Job`] itself, in memory.
    pub spec: OwnedFd,
    /// Where events go, and orders come from. Closed by the daemon to kill the sandbox.
    pub control: OwnedFd,
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

impl JobFds {
    /// Takes descriptors as received.
    pub(crate) fn from_received(fds: Vec<OwnedFd>) -> Option<Self> {
        let [spec, control, stdin, stdout, stderr] = <[OwnedFd; 5]>::try_from(fds).ok()?;
        Some(Self { spec, control, stdin, stdout, stderr })
    }
}

/// Keeper → daemon, over the control socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The master of the sandbox's terminal goes with this message.
    Terminal,
    /// The last message.
    Done(Result<Exit, RunnerError>),
}

/// Daemon → keeper, over the control socket. A closed socket means kill, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// To the first process only.
    Signal(i32),
    /// Everything in the sandbox.
    Kill,
}

/// The sandbox's first process → keeper, before it becomes the command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Birth {
    /// What was made for mounts.
    Stubs(Vec<Stub>),
    /// The master of the terminal goes with this message.
    Terminal,
    /// Nothing runs.
    Failed(RunnerError),
}
