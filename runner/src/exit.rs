//! How a sandbox ended.

use serde::{Deserialize, Serialize};

/// What is known about a command that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How its first process ended.
    pub status: ExitStatus,
    /// Somebody in it was killed because its memory limit was reached.
    pub oom_killed: bool,
    /// Somebody in it could not start a process or thread because its limit was reached.
    pub forks_refused: bool,
    /// What it used.
    pub usage: Usage,
    /// What the caller may want to tell its user, such as a limit that could not be enforced as asked.
    pub warnings: Vec<String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The code a shell would show: 128 + n for signal n.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Whether the code is 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// Resources used by the first process and the children it waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub user_micros: u64,
    /// CPU time in the kernel, microseconds.
    pub system_micros: u64,
}
