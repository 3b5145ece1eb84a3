//! `rbuild explain`.

mod text;

use std::process::ExitCode;

use proto::rbuild::ExplainRequest;
use tonic::Code;

use super::history::named;
use super::table::stdout;
use super::{Context, json};
use crate::client::{Client, ClientError};
use crate::explanation::Explanation;
use crate::progress::size;

/// Tells why each step of a build ran instead of coming from the cache
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How it is told
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    format: Format,
    /// An id or its beginning, or ^N, the one N before the latest [default: the latest]
    #[arg(value_name = "BUILD")]
    reference: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// A tree, for people
    Text,
    /// For scripts
    Json,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let reference = match &self.reference {
            // Refs may be named as docker does, with the node before them.
            Some(given) => named(&client, given.rsplit('/').next().unwrap_or_default()).await?,
            None => String::new(),
        };
        let explanation = ask(&client, &reference).await?;
        match self.format {
            Format::Text => stdout(&text::render(&explanation, width(&std::io::stdout())))?,
            Format::Json => json::print(&explanation)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Tells on stderr why the steps of a build ran that has just ended, in whatever way.
pub(super) async fn after_build(client: &Client, reference: &str) {
    use std::io::Write as _;
    let told = match ask(client, reference).await {
        Ok(explanation) => text::render(&explanation, width(&std::io::stderr())),
        // The build's own outcome is what counts.
        Err(error) => format!("WARNING: cannot explain the build: {error}\n"),
    };
    let _ = std::io::stderr().write_all(told.as_bytes());
}

/// The columns of a terminal; `None` of what is none.
fn width(stream: &impl std::io::IsTerminal) -> Option<usize> {
    stream.is_terminal().then(|| usize::from(size().0))
}

async fn ask(client: &Client, reference: &str) -> Result<Explanation, ClientError> {
    let answer = client.explain().get(ExplainRequest { r#ref: reference.to_owned() }).await;
    let answer = answer.map_err(|status| match status.code() {
        Code::Unimplemented => ClientError::Usage(
            "the daemon cannot explain builds: it is no rbuild, or an older one".to_owned(),
        ),
        _ => status.into(),
    })?;
    serde_json::from_str(&answer.into_inner().json)
        .map_err(|error| ClientError::Usage(format!("the daemon's explanation cannot be read: {error}")))
}
