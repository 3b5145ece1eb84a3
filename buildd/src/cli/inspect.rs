//! `rbuild inspect`.

use std::process::ExitCode;

use proto::rbuild::InspectImageRequest;
use serde_json::Value;

use super::Context;
use super::history::read_content;
use super::table::{print, row, size, stdout};
use crate::client::{Client, ClientError};

/// Shows all that is known of images, as JSON
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Lists what is said of the images instead: provenance, SBOMs, others
    #[arg(long)]
    attestations: bool,
    /// With `--attestations`: pretty, or json with the statements as a whole
    #[arg(long, value_name = "FORMAT", default_value = "pretty", value_parser = ["pretty", "json"], requires = "attestations")]
    format: String,
    /// Prints the statement on how the image was made instead
    #[arg(long, conflicts_with_all = ["attestations", "sbom"])]
    provenance: bool,
    /// Prints the statement on what is in the image instead
    #[arg(long, conflicts_with = "attestations")]
    sbom: bool,
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
        match (self.provenance, self.sbom) {
            (true, _) => self.print_whole(&client, &found, "provenance").await?,
            (_, true) => self.print_whole(&client, &found, "sbom").await?,
            _ if self.attestations && self.format == "json" => {
                let mut all = Vec::new();
                for mut said in found.iter().flat_map(attestations).cloned() {
                    said["Statement"] = statement(&client, &said).await?;
                    all.push(said);
                }
                print_json(&all.into())?;
            }
            _ if self.attestations => list(&found)?,
            _ => print_json(&found.into())?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Prints the first statement of a kind about each image.
    async fn print_whole(&self, client: &Client, found: &[Value], kind: &str) -> Result<(), ClientError> {
        for (name, image) in self.images.iter().zip(found) {
            let Some(said) = attestations(image).iter().find(|said| said["Kind"] == kind) else {
                return Err(ClientError::Usage(format!("image `{name}` has no {kind}")));
            };
            print_json(&statement(client, said).await?)?;
        }
        Ok(())
    }
}

/// What is said of an image.
fn attestations(image: &Value) -> &[Value] {
    image["Attestations"].as_array().map_or(&[], Vec::as_slice)
}

/// A statement as a whole.
async fn statement(client: &Client, said: &Value) -> Result<Value, ClientError> {
    let bytes = read_content(client, said["Digest"].as_str().unwrap_or_default()).await?;
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into()))
}

fn list(images: &[Value]) -> Result<(), ClientError> {
    let mut rows = vec![row(["KIND", "TYPE", "PLATFORM", "DIGEST", "SIZE"])];
    rows.extend(images.iter().flat_map(attestations).map(|said| {
        // What others say is not for the terminal to obey.
        let text = |name: &str| said[name].as_str().unwrap_or_default().escape_debug().to_string();
        let size = size(said["Size"].as_i64().unwrap_or_default());
        row([&*text("Kind"), &text("PredicateType"), &text("Platform"), &text("Digest"), &size])
    }));
    Ok(print(&rows)?)
}

fn print_json(value: &Value) -> Result<(), ClientError> {
    Ok(stdout(&format!("{value:#}\n"))?)
}
