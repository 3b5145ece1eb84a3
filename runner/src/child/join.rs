//! One more process in a sandbox that runs: it enters the namespaces of the first one and becomes its own command.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sched::CloneFlags;
use rustix::process::DumpableBehavior;

use super::{Role, begin, connect_stdio, tell, terminal};
use crate::error::{Doing, RunnerError};
use crate::job::Birth;
use crate::socket;
use crate::spec::ProcessSpec;
use crate::sys;

/// What the keeper prepared for one more process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Joining<'a> {
    /// The [`crate::job::Job`] of the sandbox, in memory.
    pub job: BorrowedFd<'a>,
    /// The [`ProcessSpec`], in memory.
    pub process: BorrowedFd<'a>,
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// To the keeper.
    pub birth: BorrowedFd<'a>,
    /// A pidfd of the sandbox's first process.
    pub first: BorrowedFd<'a>,
    /// Its out-of-memory score, unless the sandbox has one.
    pub badness: i32,
}

/// Turns this process (already in the sandbox's pid namespace) into the command, or reports why not and ends.
pub(crate) fn join(joining: &Joining<'_>) -> ! {
    let Err(error) = become_command(joining);
    tell(joining.birth, &Birth::Failed(error), &[]).ok();
    sys::process::exit_now(1)
}

fn become_command(joining: &Joining<'_>) -> Result<Infallible, RunnerError> {
    // Others in the sandbox see this process: they must not get at its memory and descriptors once it is one of them.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .doing(|| "shield the process from its sandbox")?;
    let sandbox = begin(joining.job, joining.badness)?;
    let process: ProcessSpec = socket::from_memory(joining.process).doing(|| "read the request")?;
    // The mount namespace's root is the sandbox's: from here on the host's files are out of reach.
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET;
    nix::sched::setns(joining.first, namespaces).doing(|| "enter the sandbox")?;
    match process.tty {
        Some(size) => {
            let master = terminal::open_another(size)?;
            tell(joining.birth, &Birth::Terminal, &[master.as_fd()])?;
            terminal::take_over(&terminal::other_end(&master)?, process.user.uid)?;
        }
        None => connect_stdio([joining.stdin, joining.stdout, joining.stderr], &process.user)?,
    }
    let ProcessSpec { args, env, cwd, user, .. } = &process;
    Role { args, env, cwd, user, sandbox: &sandbox }.assume()
}
