//! `rbuild history`.

use std::process::ExitCode;

use proto::rbuild::ImageHistoryRequest;

use super::Context;
use super::table::{ago, print, row, short, size};
use crate::client::ClientError;

/// Characters of a command that are shown.
const SHOWN: usize = 60;

/// Shows the steps that made an image
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Prints whole commands and digests
    #[arg(long)]
    no_trunc: bool,
    /// A name or id
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let request = ImageHistoryRequest { reference: self.image.clone() };
        let entries = client.images().history(request).await?.into_inner().entries;
        let mut rows = vec![row(["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"])];
        rows.extend(entries.iter().map(|entry| {
            let layer =
                if entry.diff_id.is_empty() { "-".to_owned() } else { short(&entry.diff_id, self.no_trunc) };
            let command = self.command(&entry.created_by);
            row([&layer, &ago(entry.created.as_ref()), &command, &size(entry.size), &entry.comment])
        }));
        print(&rows)?;
        Ok(ExitCode::SUCCESS)
    }

    fn command(&self, text: &str) -> String {
        // One line each, whatever it holds.
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(SHOWN) {
            Some((at, _)) if !self.no_trunc => format!("{}…", &line[..at]),
            _ => line,
        }
    }
}
