//! `rbuild history`: past builds, and the steps that made an image.

mod attachments;
mod change;
mod image;
mod inspect;
mod list;
mod logs;
mod record;

use std::process::ExitCode;

use super::Context;
use crate::client::ClientError;
pub(super) use attachments::read as read_content;
pub(super) use record::{named, running};

/// Shows past and running builds, or the steps that made an image
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Prints whole commands and digests
    #[arg(long)]
    no_trunc: bool,
    /// A name or id; one that is called as a command here needs its tag
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    #[command(visible_alias = "list")]
    Ls(list::Args),
    Logs(logs::Args),
    Inspect(inspect::Args),
    Rm(change::RemoveArgs),
    /// Keeps builds, whatever the daemon's limits are
    Pin(change::PinArgs),
    /// Lets pinned builds go in their time
    Unpin(change::PinArgs),
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        match (&self.verb, &self.image) {
            (Some(Verb::Ls(args)), _) => args.run(context).await,
            (Some(Verb::Logs(args)), _) => args.run(context).await,
            (Some(Verb::Inspect(args)), _) => args.run(context).await,
            (Some(Verb::Rm(args)), _) => args.run(context).await,
            (Some(Verb::Pin(args)), _) => args.run(context, true).await,
            (Some(Verb::Unpin(args)), _) => args.run(context, false).await,
            (None, Some(image)) => image::show(image, self.no_trunc, context).await,
            (None, None) => {
                Err(ClientError::Usage("name an image, or say what to do with builds".to_owned()))
            }
        }
    }
}
