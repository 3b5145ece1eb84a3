//! `rbuild history rm`, `pin` and `unpin`.

use std::process::ExitCode;

use proto::control::UpdateBuildHistoryRequest;
use tonic::Code;

use super::super::Context;
use super::super::table::stdout;
use super::record::{all, find};
use crate::client::{Client, ClientError};

/// Forgets builds with their logs
#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// All that have ended
    #[arg(long, conflicts_with = "builds")]
    all: bool,
    /// Ids or their beginnings, or ^N, the one N before the latest
    #[arg(value_name = "BUILD", required_unless_present = "all")]
    builds: Vec<String>,
}

impl RemoveArgs {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let gone = if self.all {
            let builds = all(&client, &[]).await?;
            builds.into_iter().filter(|b| b.0.completed_at.is_some()).map(|b| b.0.r#ref).collect()
        } else {
            found(&client, &self.builds).await?
        };
        for reference in gone {
            let request =
                UpdateBuildHistoryRequest { r#ref: reference.clone(), delete: true, ..Default::default() };
            match client.control().update_build_history(request).await {
                // Named twice, or trimmed meanwhile.
                Err(status) if status.code() == Code::NotFound => continue,
                done => done?,
            };
            stdout(&format!("{reference}\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Builds to keep, or not to keep any more.
#[derive(Debug, clap::Args)]
pub(super) struct PinArgs {
    /// Ids or their beginnings, or ^N, the one N before the latest
    #[arg(value_name = "BUILD", required = true)]
    builds: Vec<String>,
}

impl PinArgs {
    pub(super) async fn run(&self, context: &Context, pinned: bool) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        for reference in found(&client, &self.builds).await? {
            let request =
                UpdateBuildHistoryRequest { r#ref: reference.clone(), pinned, ..Default::default() };
            client.control().update_build_history(request).await?;
            stdout(&format!("{reference}\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// All of them, before anything changes: `^N` counts from now.
async fn found(client: &Client, wanted: &[String]) -> Result<Vec<String>, ClientError> {
    let mut found = Vec::new();
    for reference in wanted {
        found.push(find(client, Some(reference)).await?.0.r#ref);
    }
    Ok(found)
}
