//! How much of what is written to a store has left.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use cache::registry::PushSource;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes that have left, of those that are to.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent: AtomicU64,
    total: AtomicU64,
}

impl Traffic {
    /// A source of `size` bytes that are counted as they leave.
    pub(super) fn of(self: &Arc<Self>, source: Arc<dyn PushSource>, size: u64) -> Arc<dyn PushSource> {
        self.total.fetch_add(size, Ordering::Relaxed);
        Arc::new(Counted { source, traffic: self.clone() })
    }

    /// So many bytes have left of so many.
    pub(super) fn told(&self) -> (u64, u64) {
        let total = self.total.load(Ordering::Relaxed);
        // What is sent again is counted again.
        (self.sent.load(Ordering::Relaxed).min(total), total)
    }
}

#[derive(Debug)]
struct Counted {
    source: Arc<dyn PushSource>,
    traffic: Arc<Traffic>,
}

#[async_trait]
impl PushSource for Counted {
    async fn open(&self) -> io::Result<Pin<Box<dyn AsyncRead + Send>>> {
        let reader = self.source.open().await?;
        Ok(Box::pin(Counting { reader, traffic: self.traffic.clone() }))
    }
}

struct Counting {
    reader: Pin<Box<dyn AsyncRead + Send>>,
    traffic: Arc<Traffic>,
}

impl AsyncRead for Counting {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let me = self.get_mut();
        let read = me.reader.as_mut().poll_read(cx, buf);
        me.traffic.sent.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn what_leaves_is_counted() {
        let traffic = Arc::new(Traffic::default());
        let source = traffic.of(Arc::new(Bytes::from_static(b"0123456789")), 10);
        assert_eq!(traffic.told(), (0, 10));
        let mut part = [0; 4];
        source.open().await.unwrap().read_exact(&mut part).await.unwrap();
        assert_eq!(traffic.told(), (4, 10));
        let mut all = Vec::new();
        source.open().await.unwrap().read_to_end(&mut all).await.unwrap();
        assert_eq!((traffic.told(), all.as_slice()), ((10, 10), &b"0123456789"[..]));
    }
}
