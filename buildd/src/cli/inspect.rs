//! `rbuild inspect`.

mod statements;

use std::process::ExitCode;

use proto::rbuild::InspectImageRequest;
use serde_json::Value;

use super::table::{print, row, size};
use super::{Context, json};
use crate::client::{Client, ClientError};
use statements::{Platforms, Wanted, about, read};

/// Shows all that is known of images, as JSON
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Lists what is said of the images instead: provenance, SBOMs, others
    #[arg(long, group = "statements")]
    attestations: bool,
    /// Prints the statements on how the images were made instead
    #[arg(long, group = "statements")]
    provenance: bool,
    /// Prints the statements on what is in the images instead: on an image as a whole first, then on what else was scanned for it
    #[arg(long, group = "statements")]
    sbom: bool,
    /// pretty (a list, or one statement after the other), or json (an array of all, with what each is about)
    #[arg(long, value_name = "FORMAT", default_value = "pretty", value_parser = ["pretty", "json"], requires = "statements")]
    format: String,
    /// Platforms of images for several, such as linux/arm64, or all [default: all with `--attestations`, else the one that is run
    /// here]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',', requires = "statements")]
    platform: Vec<String>,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let wanted = self.wanted()?;
        let client = context.connect().await?;
        let mut found = Vec::new();
        for image in &self.images {
            let request = InspectImageRequest { reference: image.clone() };
            let json = client.images().inspect(request).await?.into_inner().json;
            // What is no JSON is still worth showing.
            found.push(serde_json::from_str(&json).unwrap_or(Value::String(json)));
        }
        let Some(wanted) = wanted else {
            print_json(&found.into())?;
            return Ok(ExitCode::SUCCESS);
        };
        let mut said = Vec::new();
        for (name, image) in self.images.iter().zip(&found) {
            said.extend(wanted.of(name, image)?);
        }
        match (self.format == "json", self.attestations) {
            (true, _) => print_array(&client, said).await?,
            (_, true) => list(&said)?,
            _ => print_whole(&client, &said).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Which statements are shown; `None` where the image itself is.
    fn wanted(&self) -> Result<Option<Wanted>, ClientError> {
        let (kind, default) = match (self.attestations, self.provenance, self.sbom) {
            (true, ..) => (None, Platforms::All),
            (_, true, _) => (Some("provenance"), Platforms::Own),
            (.., true) => (Some("sbom"), Platforms::Own),
            _ => return Ok(None),
        };
        Ok(Some(Wanted { kind, platforms: Platforms::parse(&self.platform, default)? }))
    }
}

/// Prints statements as they are, one after the other.
async fn print_whole(client: &Client, said: &[&Value]) -> Result<(), ClientError> {
    for said in said {
        print_json(&read(client, said).await?)?;
    }
    Ok(())
}

/// Prints statements together with what is known of them.
async fn print_array(client: &Client, said: Vec<&Value>) -> Result<(), ClientError> {
    let mut all = Vec::new();
    for said in said {
        let mut whole = said.clone();
        whole["Statement"] = read(client, said).await?;
        all.push(whole);
    }
    print_json(&all.into())
}

fn list(said: &[&Value]) -> Result<(), ClientError> {
    let mut rows = vec![row(["KIND", "TYPE", "PLATFORM", "DIGEST", "SIZE"])];
    rows.extend(said.iter().map(|said| {
        // What others say is not for the terminal to obey.
        let text = |name: &str| said[name].as_str().unwrap_or_default().escape_debug().to_string();
        let size = size(said["Size"].as_i64().unwrap_or_default());
        row([&*text("Kind"), &text("PredicateType"), &about(said), &text("Digest"), &size])
    }));
    Ok(print(&rows)?)
}

fn print_json(value: &Value) -> Result<(), ClientError> {
    Ok(json::print(value)?)
}
