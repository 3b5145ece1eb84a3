//! Blobs of the client's content stores, such as an OCI layout that it offers.

use std::io;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use proto::content::content_client::ContentClient;
use proto::content::{ReadContentRequest, WriteAction, WriteContentRequest};
use solver::Digest;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Status};

use super::call::{MAX_MESSAGE, add_header, lazy};
use super::{Session, SessionError};

/// How much of a blob one message holds, in bytes.
const CHUNK: usize = 256 << 10;

impl Session {
    /// Writes a blob into the client's content store `store`: the one that takes an export (`export`), a cache (`local:PATH`).
    /// A blob that is there already is left as it is.
    ///
    /// # Errors
    /// The client takes no blobs, could not write it, or went away; `read` failed.
    pub async fn write_blob(
        &self,
        store: &str,
        digest: &Digest,
        size: u64,
        mut read: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<(), SessionError> {
        self.require("/containerd.services.content.v1.Content/Write")?;
        let metadata = store_header(store)?;
        let (name, total) = (format!("rbuild-{digest}"), size as i64);
        let message = move |action: WriteAction, offset: u64, data: Bytes| WriteContentRequest {
            action: action.into(),
            r#ref: name.clone(),
            total,
            expected: format!("{digest}"),
            offset: offset as i64,
            data,
            ..WriteContentRequest::default()
        };
        let (messages, queue) = tokio::sync::mpsc::channel(4);
        let request = Request::from_parts(metadata, Extensions::default(), ReceiverStream::new(queue));
        let mut client = ContentClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        let answers = lazy(async move { client.write(request).await });
        let send = async move {
            let mut offset = 0;
            let mut buffer = vec![0; CHUNK];
            loop {
                let n = read.read(&mut buffer).await?;
                let action = if n == 0 { WriteAction::Commit } else { WriteAction::Write };
                let data = Bytes::copy_from_slice(&buffer[..n]);
                // Nobody takes it any more when the client has answered: with an error, or that it has the blob.
                if messages.send(message(action, offset, data)).await.is_err() || n == 0 {
                    return Ok::<_, io::Error>(());
                }
                offset += n as u64;
            }
        };
        let receive = async {
            match answers.try_for_each(|_| std::future::ready(Ok(()))).await {
                Err(status) if status.code() != Code::AlreadyExists => Err(SessionError::from(status)),
                _ => Ok(()),
            }
        };
        self.live(async {
            tokio::pin!(send, receive);
            tokio::select! {
                // An answer may come before all was sent: then it is the last word.
                received = &mut receive => received,
                sent = &mut send => {
                    sent.map_err(|error| SessionError::from(Status::internal(error.to_string())))?;
                    receive.await
                }
            }
        })
        .await
    }

    /// Reads a blob of the content store that the client offers as `store`: an OCI layout (`oci:NAME`), a cache (`local:PATH`). What comes is not verified; a failure of the
    /// client is a `tonic::Status` within the `io::Error`.
    ///
    /// # Errors
    /// The client offers no content stores.
    pub fn store_blob(
        &self,
        store: &str,
        digest: &Digest,
    ) -> Result<impl AsyncRead + Send + Unpin + 'static + use<>, SessionError> {
        self.require("/containerd.services.content.v1.Content/Read")?;
        let metadata = store_header(store)?;
        let request = ReadContentRequest { digest: digest.to_string(), ..ReadContentRequest::default() };
        let request = Request::from_parts(metadata, Extensions::default(), request);
        let mut client = ContentClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        let messages = lazy(async move { client.read(request).await });
        Ok(StreamReader::new(Box::pin(messages.map_ok(|message| message.data).map_err(io::Error::other))))
    }
}

/// Says which store is meant. Nobody decodes the name, so it stays as it is.
fn store_header(store: &str) -> Result<MetadataMap, SessionError> {
    let mut metadata = MetadataMap::new();
    if !store.is_ascii() {
        return Err(SessionError::Header(store.to_owned()));
    }
    add_header(&mut metadata, "buildkit-attachable-store-id", &[store.to_owned()])?;
    Ok(metadata)
}
