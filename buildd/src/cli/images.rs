//! `rbuild images`.

use std::process::ExitCode;

use proto::rbuild::ListImagesRequest;

use super::Context;
use super::table::{ago, print, row, short, size, stdout};
use crate::client::ClientError;

/// Lists the images of the image store
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Prints image ids only
    #[arg(short, long)]
    quiet: bool,
    /// Prints whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Only names that contain this
    #[arg(value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let request = ListImagesRequest { filter: self.filter.clone() };
        let images = client.images().list(request).await?.into_inner().images;
        if self.json {
            let list: Vec<_> = images
                .iter()
                .map(|image| {
                    serde_json::json!({
                        "name": image.name, "id": image.id, "digest": image.digest, "size": image.size,
                        "created": image.created.map(|time| time.seconds), "platforms": image.platforms,
                    })
                })
                .collect();
            stdout(&format!("{}\n", serde_json::Value::from(list)))?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.quiet {
            let ids: String = images.iter().map(|image| short(&image.id, self.no_trunc) + "\n").collect();
            stdout(&ids)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = vec![row(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"])];
        rows.extend(images.iter().map(|image| {
            let (name, tag) = split(&image.name);
            let id = short(&image.id, self.no_trunc);
            row([name, tag, &id, &ago(image.created.as_ref()), &size(image.size)])
        }));
        print(&rows)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A reference as people write it: Docker Hub's prefixes left out, the tag apart.
fn split(name: &str) -> (&str, &str) {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (name, "<none>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shortened() {
        assert_eq!(split("docker.io/library/app:latest"), ("app", "latest"));
        assert_eq!(split("docker.io/me/app:1"), ("me/app", "1"));
        assert_eq!(split("localhost:5000/app"), ("localhost:5000/app", "<none>"));
    }
}
