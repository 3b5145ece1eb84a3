//! Packets between gRPC streams and the blocking threads: many at a time, because waking a thread costs more than a packet.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use proto::fsutil::Packet;
use proto::fsutil::packet::PacketType;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::Status;

use super::TransferError;

/// Bytes on their way to the blocking thread, and the most that one packet may bring: a sender chooses the size of its
/// packets, and must not choose how much memory they take here.
pub(super) const ROOM: u32 = 8 << 20;

/// Packets that travel together, at most; fewer when no more have arrived.
const TOGETHER: usize = 256;

/// Bytes that travel together: beyond it no packet joins.
const TOGETHER_BYTES: u32 = 256 << 10;

/// Packets that arrived together, and the room that they take.
pub(super) struct Arrived {
    pub(super) packets: Vec<Packet>,
    pub(super) room: Arc<OwnedSemaphorePermit>,
}

/// What a receiver says. Unbounded, since a sender may read requests only while it can send: few bytes for each file.
#[derive(Debug)]
pub enum Reply {
    /// It asks for these files.
    Wanted(Vec<u32>),
    /// It has all.
    Done,
    /// It failed.
    Failed(String),
}

/// What a receiver says, as packets.
pub fn replies(replies: mpsc::UnboundedReceiver<Reply>) -> impl Stream<Item = Packet> + Send + 'static {
    let packet = |kind: PacketType| Packet { r#type: kind.into(), ..Packet::default() };
    UnboundedReceiverStream::new(replies).flat_map(move |reply| {
        let (ids, last) = match reply {
            Reply::Wanted(ids) => (ids, None),
            Reply::Done => (Vec::new(), Some(packet(PacketType::PacketFin))),
            Reply::Failed(text) => {
                (Vec::new(), Some(Packet { data: text.into(), ..packet(PacketType::PacketErr) }))
            }
        };
        let wanted = ids.into_iter().map(move |id| Packet { id, ..packet(PacketType::PacketReq) });
        futures_util::stream::iter(wanted.chain(last))
    })
}

/// What a sender sends, one by one.
pub fn packets(batches: mpsc::Receiver<Vec<Packet>>) -> impl Stream<Item = Packet> + Send + 'static {
    ReceiverStream::new(batches).flat_map(futures_util::stream::iter)
}

/// Passes packets on until the thread has enough; `progress` is told the bytes of each batch.
pub(super) async fn feed(
    incoming: impl Stream<Item = Result<Packet, Status>>,
    tx: mpsc::Sender<Arrived>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), TransferError> {
    let mut incoming = pin!(incoming.fuse());
    let room = Arc::new(Semaphore::new(ROOM as usize));
    loop {
        let mut packets = Vec::new();
        let mut bytes = 0;
        let next = std::future::poll_fn(|cx| {
            while packets.len() < TOGETHER && bytes < TOGETHER_BYTES {
                match incoming.as_mut().poll_next(cx) {
                    Poll::Ready(Some(Ok(packet))) => {
                        let len = packet.encoded_len();
                        match u32::try_from(len).ok().filter(|len| *len <= ROOM - TOGETHER_BYTES) {
                            Some(len) => bytes += len,
                            None => return Poll::Ready(Err(TransferError::Large(len))),
                        }
                        packets.push(packet);
                    }
                    Poll::Ready(Some(Err(status))) => {
                        return Poll::Ready(Err(TransferError::Stream(Box::new(status))));
                    }
                    Poll::Ready(None) => return Poll::Ready(Ok(false)),
                    Poll::Pending if packets.is_empty() => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(true))
        });
        let next = tokio::select! {
            next = next => next,
            () = tx.closed() => return Ok(()),
        };
        progress(bytes.into());
        if !packets.is_empty() {
            // The thread gives room back until it ends, and then the channel is closed.
            let permit = tokio::select! {
                permit = room.clone().acquire_many_owned(bytes) => permit,
                () = tx.closed() => return Ok(()),
            };
            let Ok(permit) = permit else { return Ok(()) };
            if tx.send(Arrived { packets, room: Arc::new(permit) }).await.is_err() {
                return Ok(());
            }
        }
        if !next? {
            return Ok(());
        }
    }
}
