//! `rbuild history IMAGE`.

use std::process::ExitCode;

use proto::rbuild::ImageHistoryRequest;

use super::super::Context;
use super::super::table::{ago, cut, print, row, short, size};
use crate::client::ClientError;

/// Characters of a command that are shown.
const SHOWN: usize = 60;

/// Shows the steps that made an image.
pub(super) async fn show(image: &str, no_trunc: bool, context: &Context) -> Result<ExitCode, ClientError> {
    let client = context.connect().await?;
    let request = ImageHistoryRequest { reference: image.to_owned() };
    let entries = client.images().history(request).await?.into_inner().entries;
    let mut rows = vec![row(["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"])];
    rows.extend(entries.iter().map(|entry| {
        let layer = if entry.diff_id.is_empty() { "-".to_owned() } else { short(&entry.diff_id, no_trunc) };
        // One line, whatever the text holds.
        let line = entry.created_by.split_whitespace().collect::<Vec<_>>().join(" ");
        let command = cut(&line, SHOWN, no_trunc);
        row([&layer, &ago(entry.created.as_ref()), &command, &size(entry.size), &entry.comment])
    }));
    print(&rows)?;
    Ok(ExitCode::SUCCESS)
}
