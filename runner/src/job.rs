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
    /// Directory name that the daemon's cgroups lie in, in each hierarchy.
    pub cgroups: String,
}

/// The descriptors that go with a [`Job`], in this order.
#[derive(Debug)]
pub(crate) struct JobFds {
    /// The [`Job`] itself, in memory.
    pub spec: OwnedFd,
    /// Where events go, and orders come from. Closed at the other end to kill the sandbox.
    pub control: OwnedFd,
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Only kept open until the sandbox has ended: by them others see that it has not.
    pub held: Vec<OwnedFd>,
}

impl JobFds {
    /// Takes descriptors as received.
    pub(crate) fn from_received(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let (spec, control) = (fds.next()?, fds.next()?);
        let (stdin, stdout, stderr) = (fds.next()?, fds.next()?, fds.next()?);
        Some(Self { spec, control, stdin, stdout, stderr, held: fds.collect() })
    }
}

/// Keeper → whoever holds the [`crate::SandboxHandle`], over the control socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The command runs. The master of its terminal goes with this message if it has one.
    Started,
    /// The last message.
    Done(Result<Exit, RunnerError>),
}

/// The holder of the handle → keeper, over the control socket. A closed socket means kill, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Starts one more process in the sandbox. With it go the descriptors of [`JobFds`], whose first is a
    /// [`crate::spec::ProcessSpec`].
    Join,
    /// To the first process only.
    Signal(i32),
    /// Everything in the sandbox.
    Kill,
}

/// The sandbox's first process → keeper, before it becomes the command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Birth {
    /// The file tree is complete.
    Built {
        /// What was made for mounts.
        stubs: Vec<Stub>,
        /// What the user should know.
        warning: Option<String>,
    },
    /// The master of the terminal goes with this message.
    Terminal,
    /// Nothing runs.
    Failed(RunnerError),
}
