//! `rbuild version`.

use std::process::ExitCode;

use proto::control::InfoRequest;
use proto::rbuild::VersionRequest;

use super::Context;
use super::table::stdout;
use crate::client::ClientError;
use crate::version::Version;

/// Prints the versions of the client and, with --daemon, of the daemon
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Asks the daemon, too
    #[arg(long)]
    daemon: bool,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        stdout(&format!("rbuild {}\n", Version::own().version))?;
        if self.daemon {
            let client = context.connect().await?;
            let text = match client.version().get(VersionRequest {}).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    let mut text = format!(
                        "daemon: rbuild {} (pid {}, root {})\n",
                        answer.version, answer.pid, answer.root
                    );
                    if answer.snapshotter == "native" {
                        text +=
                            "daemon: each step works on a copy of its files: overlays cannot be mounted\n";
                    }
                    text
                }
                // A stock BuildKit daemon.
                Err(_) => {
                    let info = client.control().info(InfoRequest {}).await?.into_inner();
                    let version = info.buildkit_version.unwrap_or_default();
                    format!("daemon: {} {}\n", version.package, version.version)
                }
            };
            stdout(&text)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
