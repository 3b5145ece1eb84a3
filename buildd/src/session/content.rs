//! Blobs of the client's content stores, such as an OCI layout that it offers.

use std::io;

use futures_util::TryStreamExt as _;
use proto::content::ReadContentRequest;
use proto::content::content_client::ContentClient;
use solver::Digest;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request};

use super::call::{MAX_MESSAGE, add_header, lazy};
use super::{Session, SessionError};

impl Session {
    /// Reads a blob of the OCI layout that the client offers as `store`. What comes is not verified; a failure of the
    /// client is a `tonic::Status` within the `io::Error`.
    ///
    /// # Errors
    /// The client offers no content stores.
    pub fn layout_blob(
        &self,
        store: &str,
        digest: &Digest,
    ) -> Result<impl AsyncRead + Send + Unpin + 'static + use<>, SessionError> {
        self.require("/containerd.services.content.v1.Content/Read")?;
        let mut metadata = MetadataMap::new();
        add_header(&mut metadata, "buildkit-attachable-store-id", &[format!("oci:{store}")])?;
        let request = ReadContentRequest { digest: digest.to_string(), ..ReadContentRequest::default() };
        let request = Request::from_parts(metadata, Extensions::default(), request);
        let mut client = ContentClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        let messages = lazy(async move { client.read(request).await });
        Ok(StreamReader::new(Box::pin(messages.map_ok(|message| message.data).map_err(io::Error::other))))
    }
}
