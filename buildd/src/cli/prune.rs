//! `rbuild prune`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use proto::control::PruneRequest;

use super::Context;
use super::du::{cells, header};
use super::table::{print, size, stdout};
use crate::client::ClientError;

/// Empties the build cache; images with names stay
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Drops cache mounts, known file digests and pulled base images too
    #[arg(short, long)]
    all: bool,
    /// Asks no questions
    #[arg(short, long)]
    force: bool,
    /// Only records that match, such as type==exec.cachemount
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Shows what was dropped
    #[arg(short, long)]
    verbose: bool,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        if !self.force {
            // Without a terminal there is nobody to ask.
            if !io::stdin().is_terminal() {
                return Err(ClientError::Usage("stdin is no terminal to ask on: add `--force`".into()));
            }
            if !confirmed(self.all)? {
                return Err(ClientError::Usage("nothing was dropped".into()));
            }
        }
        let client = context.connect().await?;
        let request = PruneRequest { filter: self.filters.clone(), all: self.all, ..PruneRequest::default() };
        let mut dropped = client.control().prune(request).await?.into_inner();
        let (mut total, mut rows) = (0, vec![header(self.verbose)]);
        while let Some(record) = dropped.message().await? {
            total += record.size.max(0);
            rows.push(cells(&record, self.verbose));
        }
        if rows.len() > 1 {
            print(&rows)?;
        }
        stdout(&format!("Total: {}\n", size(total)))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn confirmed(all: bool) -> io::Result<bool> {
    let what = if all { "all of the build cache" } else { "what the build cache does not use" };
    write!(io::stderr(), "This drops {what}. Go on? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
