//! Running the git program.

use std::path::Path;
use std::process::Stdio;

use solver::{ExecError, Stream, VertexContext};
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
const SETTINGS: [&str; 10] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "protocol.ext.allow=never",
    "-c",
    "protocol.file.allow=user",
    "-c",
    "core.symlinks=true",
];

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
            .env("GIT_SSH_COMMAND", "ssh -F /dev/null -o BatchMode=yes")
            .env("LC_ALL", "C");
        if let Some(dir) = self.dir {
            command.current_dir(dir);
        }
        let output = command.output().await.map_err(|e| ExecError::failed(RunError::Start(e)))?;
        if !output.stderr.is_empty() {
            self.cx.progress.log(Stream::Stderr, &output.stderr);
        }
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(ExecError::failed(RunError::Failed {
                command: args.first().copied().unwrap_or_default().to_owned(),
                message,
            }));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
