//! gRPC plumbing that generated code does not have: one method with two message types, and answers from a channel.

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::fsutil::TransferError;

/// Messages that are made before the transport takes them.
const BACKLOG: usize = 64;

/// Hands messages through without looking at them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(len)))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// The stream of what `work` sends, ended by its error if it has one. The work lives as long as the stream.
pub(super) fn answer<M, F>(work: impl FnOnce(mpsc::Sender<M>) -> F) -> BoxStream<'static, Result<M, Status>>
where
    M: Send + 'static,
    F: Future<Output = Result<(), TransferError>> + Send + 'static,
{
    let (tx, rx) = mpsc::channel(BACKLOG);
    let work = work(tx);
    let end =
        futures_util::stream::once(work).filter_map(|done| async { done.err().map(|err| Err(err.into())) });
    futures_util::stream::select(ReceiverStream::new(rx).map(Ok), end).boxed()
}
