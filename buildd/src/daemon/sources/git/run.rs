//! Running the git program.

use std::path::Path;
use std::process::Stdio;

use solver::{ExecError, Stream, VertexContext, redacted};
use tokio::process::Command;

/// git in a directory, for one vertex.
pub(super) struct Git<'a> {
    dir: Option<&'a Path>,
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

/// As in BuildKit. Any other would read this machine's files (`file`) or run its programs (`ext`), submodules' URLs
/// included.
const PROTOCOLS: &str = "http:https:ssh:git";

impl<'a> Git<'a> {
    pub(super) fn new(dir: Option<&'a Path>, cx: &'a VertexContext) -> Self {
        Self { dir, cx }
    }

    /// Runs a command and returns its output.
    pub(super) async fn run(&self, args: &[&str]) -> Result<String, ExecError> {
        let mut command = Command::new("git");
        command.args(SETTINGS).args(args).stdin(Stdio::null()).kill_on_drop(true).env_clear();
        for name in
            ["PATH", "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"]
        {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("GIT_SSH_COMMAND", "ssh -F /dev/null -o BatchMode=yes")
            .env("LC_ALL", "C");
        if let Some(dir) = self.dir {
            command.current_dir(dir);
        }
        let output = command.output().await.map_err(|e| ExecError::failed(RunError::Start(e)))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !said.is_empty() {
            self.cx.progress.log(Stream::Stderr, redacted(&said).as_bytes());
        }
        if !output.status.success() {
            let message = said.trim().to_owned();
            return Err(ExecError::failed(RunError::Failed {
                command: args.first().copied().unwrap_or_default().to_owned(),
                message,
            }));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
