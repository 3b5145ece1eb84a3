//! `rbuild inspect`.

use std::process::ExitCode;

use proto::rbuild::InspectImageRequest;
use serde_json::Value;

use super::Context;
use super::table::stdout;
use crate::client::ClientError;

/// Shows all that is known of images, as JSON
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let mut found = Vec::new();
        for image in &self.images {
            let request = InspectImageRequest { reference: image.clone() };
            let json = client.images().inspect(request).await?.into_inner().json;
            // What is no JSON is still worth showing.
            found.push(serde_json::from_str(&json).unwrap_or(Value::String(json)));
        }
        let text = serde_json::to_string_pretty(&Value::from(found)).expect("JSON always serializes");
        stdout(&(text + "\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}
