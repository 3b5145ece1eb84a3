//! `rbuild debug cp`: files out of what a failed step left.

use std::path::PathBuf;
use std::process::ExitCode;

use tonic::Code;

use super::super::Context;
use super::super::history::running;
use super::copy;
use crate::client::{ClientError, Inside};

/// Copies files out of the step that `rbuild build --debug` has open
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A path in the step's root; the build's id, or its beginning, may be left out while only one runs
    #[arg(value_name = "[BUILD:]PATH")]
    from: String,
    /// Where it goes: into a directory that exists, or under this name; files that are there are replaced
    #[arg(value_name = "DESTINATION")]
    to: PathBuf,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let (build, path) = match self.from.split_once(':') {
            Some((build, path)) if !build.contains('/') => (Some(build), path),
            _ => (None, self.from.as_str()),
        };
        if !path.starts_with('/') {
            return Err(ClientError::Usage(format!("`{path}` is no path from the root, `/…`")));
        }
        let client = context.connect().await?;
        let build = running(&client, build).await?;
        let inside = Inside::of(&client, &build);
        let copied = copy(&inside, path, &self.to).await;
        copied.map_err(|error| match error {
            ClientError::Daemon(status)
                if status.code() == Code::NotFound && status.message().contains(inside.id()) =>
            {
                ClientError::Usage(format!(
                    "build `{build}` has no failed step open: that is what `rbuild build --debug` does"
                ))
            }
            other => other,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
