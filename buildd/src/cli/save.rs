//! `rbuild save`.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use proto::rbuild::{ArchiveFormat, SaveImageRequest};

use super::Context;
use super::context::absolute;
use crate::client::{ClientError, FileTarget};

/// Writes images to an archive
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The archive [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Its form: docker (which is an OCI layout too) or oci
    #[arg(long, value_name = "FORMAT", default_value = "docker", value_parser = ["docker", "oci"])]
    format: String,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let format = match self.format.as_str() {
            "oci" => ArchiveFormat::Oci,
            _ => ArchiveFormat::Docker,
        };
        let request = SaveImageRequest { references: self.images.clone(), format: format.into() };
        match &self.output {
            None if io::stdout().is_terminal() => {
                return Err(ClientError::Usage("an archive would go to the terminal; add `-o FILE`".into()));
            }
            None => receive(context, request, &mut io::stdout()).await?,
            Some(path) => {
                let file = FileTarget::new(&absolute(path)?)?;
                receive(context, request, &mut &file).await?;
                file.commit()?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn receive(
    context: &Context,
    request: SaveImageRequest,
    out: &mut (impl Write + Send),
) -> Result<(), ClientError> {
    let client = context.connect().await?;
    let mut chunks = client.images().save(request).await?.into_inner();
    while let Some(chunk) = chunks.message().await? {
        out.write_all(&chunk.data)?;
    }
    Ok(out.flush()?)
}
