//! `rbuild load`.

use std::path::PathBuf;
use std::process::ExitCode;

use futures_util::StreamExt as _;
use proto::rbuild::LoadImageRequest;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::Context;
use super::table::stdout;
use crate::client::ClientError;

/// Bytes read and sent at a time.
const CHUNK: usize = 256 << 10;

/// Reads images from an archive into the image store
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The archive: an OCI layout or docker's form, compressed or not [default: stdin]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let reader: Box<dyn AsyncRead + Send + Unpin> = match &self.input {
            None => Box::new(tokio::io::stdin()),
            Some(path) => Box::new(tokio::fs::File::open(path).await.map_err(|e| ClientError::io(path, e))?),
        };
        let client = context.connect().await?;
        // gRPC has no way to fail a request half-way: what was read before an error is kept apart from the end.
        let failed = std::sync::Arc::new(std::sync::Mutex::new(None));
        let note = std::sync::Arc::clone(&failed);
        let chunks = ReaderStream::with_capacity(reader, CHUNK)
            .map(move |chunk| {
                chunk.map_err(|err| note.lock().map(|mut slot| *slot = Some(err)).unwrap_or(())).ok()
            })
            .take_while(|chunk| std::future::ready(chunk.is_some()))
            .filter_map(|chunk| std::future::ready(chunk.map(|data| LoadImageRequest { data })));
        let loaded = client.images().load(chunks).await;
        if let Some(err) = failed.lock().ok().and_then(|mut slot| slot.take()) {
            return Err(ClientError::io(self.input.clone().unwrap_or_else(|| "-".into()), err));
        }
        let names: String =
            loaded?.into_inner().loaded.iter().map(|name| format!("Loaded image: {name}\n")).collect();
        stdout(&names)?;
        Ok(ExitCode::SUCCESS)
    }
}
