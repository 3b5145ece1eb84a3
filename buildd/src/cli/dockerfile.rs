//! `rbuild dockerfile`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::table::stdout;
use crate::client::ClientError;

/// Looks at Dockerfiles without building
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Parses, checks and lowers a Dockerfile over a stub base image
    Inspect {
        /// Prints the record as JSON, one line a file
        #[arg(long, required = true)]
        json: bool,
        /// The Dockerfiles
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode, ClientError> {
        let Verb::Inspect { files, .. } = &self.verb;
        for path in files {
            let bytes = std::fs::read(path).map_err(|e| ClientError::io(path, e))?;
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            let record = frontend::inspect::inspect(&name, &bytes);
            stdout(&format!("{record}\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
