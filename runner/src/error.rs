//! What can go wrong, told so that the reader knows which object was meant.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why a sandbox could not be started, or its end not be learnt.
///
/// Errors cross process boundaries (sandbox → keeper → daemon), so they hold numbers and texts only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RunnerError {
    /// A system call failed while something named was done.
    #[error("{action}: {}", describe(*.errno))]
    Os {
        /// What was being done, and to what.
        action: String,
        /// The error number.
        errno: i32,
    },
    /// The launcher process is gone; start another.
    #[error("the launcher process has died")]
    LauncherGone,
    /// The process that watched the sandbox died, and the sandbox with it.
    #[error("the sandbox's keeper process has died before it could tell how the command ended")]
    KeeperGone,
    /// A message between daemon, launcher and keeper was not understood.
    #[error("malformed message from `{peer}`: {detail}")]
    Protocol {
        /// Who sent it.
        peer: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The request contradicts itself or names something impossible.
    #[error("invalid sandbox request: {reason}")]
    InvalidSpec {
        /// What is wrong.
        reason: String,
    },
    /// The program is neither a path that exists nor found in `$PATH`.
    #[error("executable file `{program}` not found in $PATH")]
    ProgramNotFound {
        /// As it was given.
        program: String,
    },
    /// The program exists and cannot be run.
    #[error("cannot run `{program}`: {}", describe(*.errno))]
    ProgramNotRunnable {
        /// As it was given.
        program: String,
        /// Why: EACCES, ENOEXEC (wrong format), ENOENT (its interpreter is missing), …
        errno: i32,
    },
    /// The working directory does not exist, is no directory, or leads out of the file system.
    #[error("cannot enter the working directory `{}`: {}", .path.display(), describe(*.errno))]
    WorkingDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        errno: i32,
    },
    /// What a mount should show is not there, or leads out of where it must lie.
    #[error("mount source `{}` for `{}`: {}", .source_path.display(), .target.display(), describe(*.errno))]
    MountSource {
        /// The source, or the path selected below it.
        source_path: PathBuf,
        /// Where it should appear.
        target: PathBuf,
        /// Why.
        errno: i32,
    },
    /// The place where a mount should appear cannot be made.
    #[error("mount target `{}`: {}", .target.display(), describe(*.errno))]
    MountTarget {
        /// The target inside the sandbox.
        target: PathBuf,
        /// Why.
        errno: i32,
    },
    /// The network asked for cannot be had here. There is no fallback to another one.
    #[error("cannot set up the isolated network: {reason} (hint: --network=host or --network=none)")]
    NetworkRefused {
        /// What is missing.
        reason: String,
    },
    /// A limit was asked for that no cgroup controller of this host can enforce.
    #[error("cannot limit `{resource}`: {reason}")]
    LimitRefused {
        /// Memory, cpu or pids.
        resource: String,
        /// What is missing.
        reason: String,
    },
    /// The cgroup that a sandbox's are to lie in cannot be made or limited.
    #[error("cannot use cgroup parent `{}`: {reason}", path.display())]
    CgroupParent {
        /// From the tops of the hierarchies on.
        path: std::path::PathBuf,
        /// What stands in the way.
        reason: String,
    },
    /// Rootless mode needs something that this machine or user lacks.
    #[error("cannot run without root: {reason}")]
    Rootless {
        /// What is missing.
        reason: String,
    },
}

/// The system's text for an error number.
fn describe(errno: i32) -> String {
    io::Error::from_raw_os_error(errno).to_string()
}

impl RunnerError {
    /// An [`RunnerError::Os`] from any error that has a number.
    pub(crate) fn os(action: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self::Os { action: action.into(), errno: errno_of(&error.into()) }
    }

    /// A request that makes no sense.
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::InvalidSpec { reason: reason.into() }
    }
}

/// The number of an I/O error; EIO for those without one.
pub(crate) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Says what was being done when a call failed.
pub(crate) trait Doing<T> {
    /// Wraps the error into [`RunnerError::Os`]; `action` names verb and object.
    fn doing<S: Into<String>>(self, action: impl FnOnce() -> S) -> Result<T, RunnerError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing<S: Into<String>>(self, action: impl FnOnce() -> S) -> Result<T, RunnerError> {
        self.map_err(|error| RunnerError::os(action(), error))
    }
}
