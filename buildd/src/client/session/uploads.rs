//! Streams that the daemon takes once, such as a context on stdin.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use proto::upload::BytesMessage;
use proto::upload::upload_server::Upload;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Bytes sent in one message; a Go peer refuses more than 4 MiB.
const CHUNK: u64 = 256 << 10;
/// Messages that are read before the transport takes them.
const BACKLOG: usize = 8;

/// What is uploaded.
pub struct UploadSource(pub Box<dyn Read + Send>);

impl fmt::Debug for UploadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadSource")
    }
}

/// What is left to upload, by the last part of its URL.
#[derive(Debug)]
pub(super) struct Uploads(Mutex<BTreeMap<String, UploadSource>>);

impl Uploads {
    pub(super) fn new(sources: BTreeMap<String, UploadSource>) -> Self {
        Self(Mutex::new(sources))
    }
}

#[tonic::async_trait]
impl Upload for Uploads {
    type PullStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn pull(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let path = request.metadata().get("urlpath").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let source = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        let UploadSource(mut source) =
            source.ok_or_else(|| Status::not_found(format!("no http response from session for {name}")))?;
        let (tx, rx) = tokio::sync::mpsc::channel(BACKLOG);
        // A thread of its own: the runtime would wait at its end for a terminal that nobody types into.
        std::thread::spawn(move || {
            loop {
                let mut data = Vec::new();
                let message = match source.by_ref().take(CHUNK).read_to_end(&mut data) {
                    Ok(0) => return,
                    Ok(_) => Ok(BytesMessage { data: data.into() }),
                    Err(e) => Err(Status::unknown(format!("cannot read the upload: {e}"))),
                };
                let failed = message.is_err();
                // Nobody takes more when the daemon has hung up.
                if tx.blocking_send(message).is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(rx).boxed()))
    }
}
