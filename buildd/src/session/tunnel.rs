//! An HTTP/2 client inside `Control.Session`'s byte pipe.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use proto::control::BytesMessage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::pipe::BytePipe;

/// HTTP/2 flow-control windows. The tunnel lies inside another HTTP/2 stream, so small windows would cost two round trips
/// each; memory is used only for data that is not read.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A pipe that ends when the session is closed, and closes the session when it ends.
pub(super) struct Tunnel {
    pipe: BytePipe<BytesMessage>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    closed: CancellationToken,
    /// The connection may also drop the pipe without reading its end.
    _guard: DropGuard,
}

impl Tunnel {
    pub(super) fn new(
        incoming: Streaming<BytesMessage>,
        outgoing: mpsc::Sender<BytesMessage>,
        closed: CancellationToken,
    ) -> Self {
        Self {
            pipe: BytePipe::new(incoming, outgoing),
            closing: Box::pin(closed.clone().cancelled_owned()),
            _guard: closed.clone().drop_guard(),
            closed,
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.pipe).poll_read(cx, buf));
        if read.is_err() || buf.filled().len() == before {
            self.closed.cancel();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// A channel over the tunnel; it connects with the first call, and only once.
pub(super) fn dial(tunnel: Tunnel) -> Channel {
    let once = Arc::new(Mutex::new(Some(tunnel)));
    let connector = tower::service_fn(move |_| {
        let tunnel = once.lock().ok().and_then(|mut tunnel| tunnel.take());
        async move { tunnel.map(TokioIo::new).ok_or_else(|| Status::unavailable("the session is closed")) }
    });
    Endpoint::from_static("http://session")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector_lazy(connector)
}
