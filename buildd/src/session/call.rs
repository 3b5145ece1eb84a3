//! What all calls to the client share.

use std::future::Future;

use futures_util::{Stream, TryStreamExt as _};
use http::uri::PathAndQuery;
use proto::fsutil::Packet;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataValue, MetadataKey, MetadataMap};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::{Session, SessionError};

/// Largest message taken from a client; BuildKit's limit.
pub(super) const MAX_MESSAGE: usize = 16 << 20;

impl Session {
    /// Fails unless the client said that it serves `method`.
    pub(super) fn require(&self, method: &'static str) -> Result<(), SessionError> {
        match self.supports(method) {
            true => Ok(()),
            false => Err(SessionError::Unsupported(method)),
        }
    }

    /// Waits for `call`, but not longer than the client lives.
    pub(super) async fn live<T, E: Into<SessionError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, SessionError> {
        tokio::select! {
            done = call => done.map_err(Into::into),
            () = self.closed() => Err(SessionError::Lost(self.id().to_owned())),
        }
    }
}

/// The messages of a streaming call that may not answer, not even with headers, before it was sent something.
pub(super) fn lazy<M: Send + 'static>(
    call: impl Future<Output = Result<Response<Streaming<M>>, Status>> + Send + 'static,
) -> impl Stream<Item = Result<M, Status>> + Send + 'static {
    futures_util::stream::once(call).map_ok(Response::into_inner).try_flatten()
}

/// Adds header values the way BuildKit does: when one is not ASCII, all are query-escaped and flagged.
pub(super) fn add_header(
    metadata: &mut MetadataMap,
    key: &str,
    values: &[String],
) -> Result<(), SessionError> {
    let bad = || SessionError::Header(values.join(" "));
    let name = |key: &str| MetadataKey::from_bytes(key.as_bytes()).map_err(|_| bad());
    let encode = values.iter().any(|v| !v.is_ascii());
    for value in values {
        let text = match encode {
            true => url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
            false => value.clone(),
        };
        metadata.append(name(key)?, AsciiMetadataValue::try_from(text).map_err(|_| bad())?);
    }
    if encode {
        metadata.append(name(&format!("{key}-encoded"))?, AsciiMetadataValue::from_static("1"));
    }
    Ok(())
}

/// Calls `method` with packets instead of the messages that its .proto declares: fsutil's directory protocol runs on
/// methods made for bytes.
pub(super) async fn call_packets(
    channel: Channel,
    method: &'static str,
    request: Request<impl Stream<Item = Packet> + Send + 'static>,
) -> Result<Response<Streaming<Packet>>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
    grpc.ready().await.map_err(|err| Status::unavailable(err.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Packet, Packet>::default();
    grpc.streaming(request, PathAndQuery::from_static(method), codec).await
}
