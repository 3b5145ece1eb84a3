//! `rbuild pull`.

use std::process::ExitCode;

use proto::rbuild::PullImageRequest;

use super::Context;
use super::transfer::print_digest;
use crate::client::{ClientError, ClientSession, Services};

/// Pulls an image from its registry into the image store
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The platform, such as linux/arm64 [default: the daemon's]
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    platform: String,
    /// Shows no progress
    #[arg(short, long)]
    quiet: bool,
    /// The image, `NAME[:TAG|@DIGEST]`
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let session = ClientSession::open(&client, Services::default())?;
        let request = PullImageRequest {
            reference: self.image.clone(),
            platform: self.platform.clone(),
            session: session.id().to_owned(),
        };
        let events = client.images().pull(request).await?.into_inner();
        print_digest(events, self.quiet).await
    }
}
