//! `rbuild history logs`.

use std::process::ExitCode;

use proto::control::StatusRequest;

use super::super::Context;
use super::record::find;
use crate::client::ClientError;
use crate::progress::{Display, Mode, show_on};

/// Prints the whole log of a build, also of one that still runs
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// plain or rawjson
    #[arg(long, value_name = "MODE", default_value = "plain", value_parser = ["plain", "rawjson"])]
    progress: String,
    /// An id or its beginning, or ^N, the one N before the latest [default: the latest]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let build = find(&client, self.build.as_deref()).await?;
        let mode = if self.progress == "rawjson" { Mode::RawJson } else { Mode::Plain };
        let (messages, shown) = show_on(Display::new(mode)?, tokio::io::stdout());
        let mut status = client.control().status(StatusRequest { r#ref: build.0.r#ref }).await?.into_inner();
        while let Some(message) = status.message().await? {
            if messages.send(message).await.is_err() {
                break;
            }
        }
        drop(messages);
        // It ends by itself; what it could not write was said to nobody who listens.
        let _ended = shown.await;
        Ok(ExitCode::SUCCESS)
    }
}
