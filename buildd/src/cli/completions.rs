//! `rbuild completions`.

use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

use super::table::stdout;
use crate::client::ClientError;

/// Prints completions for a shell
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Args {
    pub(super) fn run(&self, command: &mut Command) -> Result<ExitCode, ClientError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "rbuild", &mut script);
        stdout(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}
