//! `rbuild rmi`.

use std::process::ExitCode;

use proto::rbuild::RemoveImagesRequest;

use super::Context;
use super::table::stdout;
use crate::client::ClientError;

/// Removes names from the image store, and images that no name holds any more
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let request = RemoveImagesRequest { references: self.images.clone() };
        let removed = client.images().remove(request).await?.into_inner();
        let untagged = removed.untagged.iter().map(|name| format!("Untagged: {name}\n"));
        let text: String =
            untagged.chain(removed.deleted.iter().map(|id| format!("Deleted: {id}\n"))).collect();
        stdout(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}
