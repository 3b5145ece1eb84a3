//! gRPC plumbing that generated code does not have: one method with two message types, and answers from a channel.

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::fsutil::TransferError;

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

/// The stream of `messages`, ended by the error of `work` if it has one. The work lives as long as the stream.
pub(super) fn answer<M: Send + 'static>(
    messages: impl Stream<Item = M> + Send + 'static,
    work: impl Future<Output = Result<(), TransferError>> + Send + 'static,
) -> BoxStream<'static, Result<M, Status>> {
    let end =
        futures_util::stream::once(work).filter_map(|done| async { done.err().map(|err| Err(err.into())) });
    futures_util::stream::select(messages.map(Ok), end).boxed()
}
