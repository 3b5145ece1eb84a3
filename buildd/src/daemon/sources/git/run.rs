//! Running the git program.

use std::path::Path;
use std::process::{Output, Stdio};

use solver::{ExecError, Stream, VertexContext, redacted};
use tokio::process::Command;

use super::Place;

/// git in a directory, for one vertex.
pub(super) struct Git<'a> {
    dir: &'a Path,
    place: &'a Place,
    cx: &'a VertexContext,
}

/// git failed.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("cannot run `git`: is it installed on the daemon's machine?")]
    Start(#[source] std::io::Error),
    #[error("`git {command}` failed: {message}")]
    Failed { command: String, message: String },
}

/// Settings that keep a repository from running or reading anything of this machine.
const SETTINGS: [&str; 6] =
    ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.symlinks=true"];

/// What git inherits of the daemon's environment.
const PASSED: [&str; 10] = [
    "PATH",
    "SSL_CERT_FILE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// As in BuildKit. Any other would read this machine's files (`file`) or run its programs (`ext`), submodules' URLs
/// included.
const PROTOCOLS: &str = "http:https:ssh:git";

impl<'a> Git<'a> {
    pub(super) fn new(dir: &'a Path, place: &'a Place, cx: &'a VertexContext) -> Self {
        Self { dir, place, cx }
    }

    /// Where it runs.
    pub(super) fn dir(&self) -> &'a Path {
        self.dir
    }

    /// The file that has the commits, instead of the remote.
    pub(super) fn bundle(&self) -> Option<&'a Path> {
        self.place.bundle.as_deref()
    }

    /// Runs a command, shows what it says, and returns its output.
    pub(super) async fn run(&self, args: &[&str]) -> Result<String, ExecError> {
        self.bytes(args).await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// As [`Self::run`], for output that need not be text.
    pub(super) async fn bytes(&self, args: &[&str]) -> Result<Vec<u8>, ExecError> {
        let output = self.output(args).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !said.is_empty() {
            self.cx.progress.log(Stream::Stderr, redacted(&said).as_bytes());
        }
        if !output.status.success() {
            return Err(ExecError::failed(RunError::Failed {
                command: args.first().copied().unwrap_or_default().to_owned(),
                message: said.trim().to_owned(),
            }));
        }
        Ok(output.stdout)
    }

    /// Whether a command succeeds; it says nothing.
    pub(super) async fn succeeds(&self, args: &[&str]) -> bool {
        self.output(args).await.is_ok_and(|output| output.status.success())
    }

    async fn output(&self, args: &[&str]) -> Result<Output, ExecError> {
        let mut command = Command::new("git");
        command.args(SETTINGS).args(args).stdin(Stdio::null()).kill_on_drop(true).env_clear();
        let passed = PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command
            .envs(passed)
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("LC_ALL", "C")
            .envs(self.place.access.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir);
        command.output().await.map_err(|e| ExecError::failed(RunError::Start(e)))
    }
}
