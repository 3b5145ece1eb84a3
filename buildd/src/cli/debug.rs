//! `rbuild debug`.

mod copy;
mod cp;

use std::process::ExitCode;

pub(super) use self::copy::copy;
use proto::rbuild::VerifyRequest;
use proto::rbuild::verify_event::Event;

use super::Context;
use super::table::stdout;
use crate::client::ClientError;

/// Looks into failed steps, and checks the daemon's own state
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Hashes every record, tree, layer and blob again; exits 1 when anything is wrong
    Verify,
    Cp(cp::Args),
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        match &self.verb {
            Verb::Verify => verify(context).await,
            Verb::Cp(args) => args.run(context).await,
        }
    }
}

async fn verify(context: &Context) -> Result<ExitCode, ClientError> {
    let client = context.connect().await?;
    let mut events = client.debug().verify(VerifyRequest {}).await?.into_inner();
    let mut wrong = 0;
    while let Some(event) = events.message().await? {
        match event.event {
            Some(Event::Finding(finding)) => {
                wrong += 1;
                stdout(&format!("{finding}\n"))?;
            }
            Some(Event::Summary(s)) => stdout(&format!(
                "{} records, {} trees, {} layers, {} blobs: {} wrong\n",
                s.records, s.trees, s.layers, s.blobs, s.findings
            ))?,
            None => {}
        }
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
