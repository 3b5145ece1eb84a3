//! Results that the daemon sends: a file as byte messages, a directory as packets, on one and the same method.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use prost::Message as _;
use proto::filesync::BytesMessage;
use proto::fsutil::Packet;
use tonic::codegen::{Body, StdError};
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::raw::{RawCodec, answer};
use crate::blocking::blocking;
use crate::client::output::Target;
use crate::fsutil::{DirWriter, Owners, receive, replies};

pub(super) const METHOD: &str = "/moby.filesync.v1.FileSend/DiffCopy";

/// Largest message taken; BuildKit's limit.
const MAX_MESSAGE: usize = 16 << 20;

/// Serves `moby.filesync.v1.FileSend`. Generated code fits it not, as the message type depends on the target.
#[derive(Debug, Clone)]
pub(super) struct FileSendServer {
    targets: Arc<Vec<Option<Target>>>,
}

type Answers = BoxStream<'static, Result<Bytes, Status>>;

impl FileSendServer {
    pub(super) fn new(targets: Vec<Option<Target>>) -> Self {
        Self { targets: Arc::new(targets) }
    }
}

impl NamedService for FileSendServer {
    const NAME: &'static str = "moby.filesync.v1.FileSend";
}

impl<B> tower::Service<http::Request<B>> for FileSendServer
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let known = request.uri().path() == METHOD;
        let handler = Handler(Arc::clone(&self.targets));
        Box::pin(async move {
            if !known {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let mut grpc = Grpc::new(RawCodec).max_decoding_message_size(MAX_MESSAGE);
            Ok(grpc.streaming(handler, request).await)
        })
    }
}

struct Handler(Arc<Vec<Option<Target>>>);

impl StreamingService<Bytes> for Handler {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = BoxFuture<'static, Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let targets = Arc::clone(&self.0);
        Box::pin(async move {
            let (metadata, _, incoming) = request.into_parts();
            let index = exporter(&metadata);
            let target = targets.get(index).cloned().flatten();
            match target.ok_or_else(|| Status::not_found(format!("exporter {index} not found")))? {
                Target::Directory(dir) => Ok(Response::new(directory(&dir, incoming))),
                target => file(&target, incoming).await,
            }
        })
    }
}

/// The exporter's index; daemons of old, with one exporter only, do not say it.
fn exporter(metadata: &MetadataMap) -> usize {
    let value = metadata.get("buildkit-attachable-exporter-id").and_then(|v| v.to_str().ok());
    value.and_then(|v| v.parse().ok()).unwrap_or(0)
}

async fn file(target: &Target, mut incoming: Streaming<Bytes>) -> Result<Response<Answers>, Status> {
    while let Some(message) = incoming.message().await? {
        let message = BytesMessage::decode(message).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let target = target.clone();
        // Who reads stdout may be slow, and health checks have to be answered meanwhile.
        let written = blocking(move || target.write(&message.data)).await;
        written.map_err(|e| Status::unknown(e.to_string()))?;
    }
    Ok(Response::new(futures_util::stream::empty().boxed()))
}

fn directory(dir: &std::path::Path, incoming: Streaming<Bytes>) -> Answers {
    let writer = DirWriter::new(dir, Owners::Mine);
    let packets =
        incoming.map(|message| Packet::decode(message?).map_err(|e| Status::invalid_argument(e.to_string())));
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
    let work = async move { receive(writer, packets, tx, &|_| ()).await.map(drop) };
    answer(replies(rx), work).map(|packet| packet.map(|packet: Packet| packet.encode_to_vec().into())).boxed()
}
