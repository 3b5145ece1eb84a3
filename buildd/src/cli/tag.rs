//! `rbuild tag`.

use std::process::ExitCode;

use proto::rbuild::TagImageRequest;

use super::Context;
use crate::client::ClientError;

/// Gives an image of the image store another name
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A name or id
    #[arg(value_name = "IMAGE")]
    source: String,
    /// The other name, `NAME[:TAG]`
    #[arg(value_name = "NAME")]
    target: String,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let request = TagImageRequest { source: self.source.clone(), target: self.target.clone() };
        client.images().tag(request).await?;
        Ok(ExitCode::SUCCESS)
    }
}
