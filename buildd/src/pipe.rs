//! A byte stream carried by gRPC messages: BuildKit's session tunnel, SSH forwarding, uploads, sent files.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;
use tonic::Status;

/// Largest message that is sent; a Go peer refuses more than 4 MiB unless told otherwise.
const MAX_CHUNK: usize = 256 << 10;

/// How many messages wait for the transport before a writer has to.
const BACKLOG: usize = 8;

/// A message that only carries bytes. BuildKit has one per package.
pub trait Chunk: Send + 'static {
    /// Wraps bytes.
    fn new(data: Bytes) -> Self;
    /// Unwraps them.
    fn into_data(self) -> Bytes;
}

macro_rules! chunk {
    ($($package:ident),*) => {$(
        impl Chunk for proto::$package::BytesMessage {
            fn new(data: Bytes) -> Self {
                Self { data }
            }

            fn into_data(self) -> Bytes {
                self.data
            }
        }
    )*};
}

chunk!(control, filesync, sshforward, upload);

/// Both directions of a stream of messages, as bytes.
///
/// Dropping it, or shutting it down, ends the outgoing direction.
pub struct BytePipe<M> {
    incoming: BoxStream<'static, Result<M, Status>>,
    /// Received, not yet read.
    rest: Bytes,
    outgoing: PollSender<M>,
}

impl<M> fmt::Debug for BytePipe<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytePipe").field("unread", &self.rest.len()).finish_non_exhaustive()
    }
}

/// The outgoing half of a pipe: the stream to hand to tonic as a request or response body.
pub type Outgoing<M> = ReceiverStream<M>;

/// Makes the sender that a pipe writes to and the stream that carries it away.
pub fn outgoing<M: Chunk>() -> (mpsc::Sender<M>, Outgoing<M>) {
    let (tx, rx) = mpsc::channel(BACKLOG);
    (tx, ReceiverStream::new(rx))
}

impl<M: Chunk> BytePipe<M> {
    /// Joins what comes in with the sender of [`outgoing`].
    pub fn new(
        incoming: impl Stream<Item = Result<M, Status>> + Send + 'static,
        outgoing: mpsc::Sender<M>,
    ) -> Self {
        Self { incoming: Box::pin(incoming), rest: Bytes::new(), outgoing: PollSender::new(outgoing) }
    }
}

impl<M: Chunk> AsyncRead for BytePipe<M> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(this.incoming.as_mut().poll_next(cx)) {
                Some(Ok(message)) => this.rest = message.into_data(),
                Some(Err(status)) => return Poll::Ready(Err(io::Error::other(status))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = this.rest.len().min(buf.remaining());
        buf.put_slice(&this.rest.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl<M: Chunk> AsyncWrite for BytePipe<M> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(this.outgoing.poll_reserve(cx)).map_err(gone)?;
        let n = buf.len().min(MAX_CHUNK);
        this.outgoing.send_item(M::new(Bytes::copy_from_slice(&buf[..n]))).map_err(gone)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().outgoing.close();
        Poll::Ready(Ok(()))
    }
}

impl<M: Chunk> tonic::transport::server::Connected for BytePipe<M> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
