//! `rbuild push`.

use std::process::ExitCode;

use proto::rbuild::PushImageRequest;

use super::Context;
use super::transfer::print_digest;
use crate::client::{ClientError, ClientSession, Services};

/// Pushes an image of the image store to its registry
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Shows no progress
    #[arg(short, long)]
    quiet: bool,
    /// The image, `NAME[:TAG]`
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let session = ClientSession::open(&client, Services::default())?;
        let request = PushImageRequest { reference: self.image.clone(), session: session.id().to_owned() };
        let events = client.images().push(request).await?.into_inner();
        print_digest(events, self.quiet).await
    }
}
