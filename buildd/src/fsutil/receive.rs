//! The receiving end.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use proto::fsutil::packet::PacketType;
use proto::fsutil::{Packet, Stat};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;

use super::mode::has_data;
use super::{OrderCheck, TransferError};

/// Packets on their way to the blocking thread.
const BACKLOG: usize = 64;

/// Bytes of data on their way to the blocking thread, and the most that one packet may bring: a sender chooses the size
/// of its packets, and must not choose how much memory they take here.
const BACKLOG_BYTES: u32 = 8 << 20;

/// Where received entries go. Called on a blocking thread, in the order of the stream.
pub trait Sink: Send + 'static {
    /// Takes an entry whose path was checked; `true` asks for its data (only regular files without link name have any).
    ///
    /// # Errors
    /// Ends the transfer; the sender is told.
    fn entry(&mut self, id: u32, stat: Stat) -> Result<bool, TransferError>;

    /// Takes the next bytes of a file that was asked for.
    ///
    /// # Errors
    /// As for `entry`.
    fn data(&mut self, id: u32, data: Bytes) -> Result<(), TransferError>;

    /// A file is complete.
    ///
    /// # Errors
    /// As for `entry`.
    fn end(&mut self, id: u32) -> Result<(), TransferError>;

    /// All is there; called once, at the end of a transfer that went well.
    ///
    /// # Errors
    /// As for `entry`.
    fn finish(&mut self) -> Result<(), TransferError> {
        Ok(())
    }
}

/// Receives a tree into `sink`, which comes back when all is there.
///
/// `outgoing` is closed at the end. Dropping the future ends the transfer.
///
/// # Errors
/// The sink failed, the sender reported an error or broke the protocol, or the stream broke.
pub async fn receive<S: Sink>(
    sink: S,
    incoming: impl Stream<Item = Result<Packet, Status>> + Send,
    outgoing: mpsc::Sender<Packet>,
) -> Result<S, TransferError> {
    let (tx, rx) = mpsc::channel(BACKLOG);
    let room = Arc::new(Semaphore::new(BACKLOG_BYTES as usize));
    let worker = tokio::task::spawn_blocking(move || Receiver::new(sink, outgoing).run(rx));
    let fed = feed(incoming, tx, room).await;
    match worker.await.map_err(|_| TransferError::Cancelled)? {
        // Without FIN the thread only saw its channel close; what closed it says more.
        Err(TransferError::Truncated) => Err(fed.err().unwrap_or(TransferError::Truncated)),
        done => done,
    }
}

/// A packet and the room that it takes.
type Weighed = (Packet, Option<OwnedSemaphorePermit>);

/// Passes packets on until the thread has enough.
async fn feed(
    incoming: impl Stream<Item = Result<Packet, Status>>,
    tx: mpsc::Sender<Weighed>,
    room: Arc<Semaphore>,
) -> Result<(), TransferError> {
    tokio::pin!(incoming);
    loop {
        let packet = tokio::select! {
            packet = incoming.next() => packet,
            () = tx.closed() => return Ok(()),
        };
        match packet {
            None => return Ok(()),
            Some(Err(status)) => return Err(TransferError::Stream(Box::new(status))),
            Some(Ok(packet)) => {
                let bytes = u32::try_from(packet.data.len()).ok().filter(|bytes| *bytes <= BACKLOG_BYTES);
                let bytes = bytes.ok_or(TransferError::Large(packet.data.len()))?;
                // The thread gives room back until it ends, and then the channel is closed.
                let taken = tokio::select! {
                    permit = room.clone().acquire_many_owned(bytes) => permit.ok(),
                    () = tx.closed() => return Ok(()),
                };
                if tx.send((packet, taken)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

struct Receiver<S> {
    sink: S,
    outgoing: mpsc::Sender<Packet>,
    order: OrderCheck,
    next_id: u32,
    wanted: HashSet<u32>,
    listed: bool,
    /// FIN was sent.
    finished: bool,
}

impl<S: Sink> Receiver<S> {
    fn new(sink: S, outgoing: mpsc::Sender<Packet>) -> Self {
        Self {
            sink,
            outgoing,
            order: OrderCheck::default(),
            next_id: 0,
            wanted: HashSet::new(),
            listed: false,
            finished: false,
        }
    }

    fn run(mut self, mut packets: mpsc::Receiver<Weighed>) -> Result<S, TransferError> {
        while let Some((packet, _room)) = packets.blocking_recv() {
            match self.packet(packet) {
                Ok(true) => return Ok(self.sink),
                Ok(false) => {}
                Err(err) => {
                    let data = err.full().into();
                    let packet = Packet { r#type: PacketType::PacketErr.into(), data, ..Packet::default() };
                    // The sender may be gone; then nobody needs to be told.
                    let _ = self.outgoing.blocking_send(packet);
                    return Err(err);
                }
            }
        }
        Err(TransferError::Truncated)
    }

    /// Takes a packet; `true` at the end.
    fn packet(&mut self, packet: Packet) -> Result<bool, TransferError> {
        match packet.r#type() {
            PacketType::PacketStat => match packet.stat {
                Some(stat) => self.entry(stat)?,
                None => self.listed = true,
            },
            PacketType::PacketData => self.data(packet.id, packet.data)?,
            PacketType::PacketFin => return Ok(self.finished),
            PacketType::PacketErr => {
                return Err(TransferError::Peer(String::from_utf8_lossy(&packet.data).into_owned()));
            }
            PacketType::PacketReq => return Err(TransferError::Id(packet.id)),
        }
        if self.listed && self.wanted.is_empty() && !self.finished {
            self.sink.finish()?;
            self.finished = true;
            self.send(PacketType::PacketFin, 0)?;
        }
        Ok(false)
    }

    fn entry(&mut self, stat: Stat) -> Result<(), TransferError> {
        if self.listed {
            return Err(TransferError::Order(stat.path));
        }
        self.order.check(&stat)?;
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or(TransferError::Id(id))?;
        let has_data = has_data(stat.mode) && stat.linkname.is_empty();
        if self.sink.entry(id, stat)? && has_data {
            self.wanted.insert(id);
            self.send(PacketType::PacketReq, id)?;
        }
        Ok(())
    }

    fn data(&mut self, id: u32, data: Bytes) -> Result<(), TransferError> {
        if !self.wanted.contains(&id) {
            return Err(TransferError::Id(id));
        }
        if !data.is_empty() {
            return self.sink.data(id, data);
        }
        self.wanted.remove(&id);
        self.sink.end(id)
    }

    fn send(&self, kind: PacketType, id: u32) -> Result<(), TransferError> {
        let packet = Packet { r#type: kind.into(), id, ..Packet::default() };
        self.outgoing.blocking_send(packet).map_err(|_| TransferError::Truncated)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fsutil::{DirWriter, Owners, file_mode};

    fn stat(path: String) -> Packet {
        let stat = Stat { path, mode: file_mode(0o100644), ..Stat::default() };
        Packet { r#type: PacketType::PacketStat.into(), stat: Some(stat), ..Packet::default() }
    }

    fn data(id: u32, data: Bytes) -> Packet {
        Packet { r#type: PacketType::PacketData.into(), id, data, ..Packet::default() }
    }

    /// Receives `packets` into a directory, whatever is asked for.
    async fn received(packets: Vec<Packet>) -> Result<u64, TransferError> {
        let dir = tempfile::tempdir().unwrap();
        let (tx, mut rx) = mpsc::channel(1);
        let asked = tokio::spawn(async move { while rx.recv().await.is_some() {} });
        let incoming = futures_util::stream::iter(packets.into_iter().map(Ok));
        let done = receive(DirWriter::new(dir.path(), Owners::Mine), incoming, tx).await;
        tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap().unwrap();
        done.map(|writer| writer.written())
    }

    #[tokio::test]
    async fn data_waits_for_room() {
        let block = Bytes::from(vec![0; 1 << 20]);
        let mut packets = vec![stat("a".into()), Packet::default()];
        packets.extend((0..40).map(|_| data(0, block.clone())));
        packets.push(data(0, Bytes::new()));
        packets.push(Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() });
        assert_eq!(received(packets).await.unwrap(), 40 << 20);
    }

    #[tokio::test]
    async fn packets_are_bounded() {
        let large = Bytes::from(vec![0; BACKLOG_BYTES as usize + 1]);
        let err = received(vec![stat("a".into()), data(0, large)]).await.unwrap_err();
        assert!(matches!(err, TransferError::Large(_)), "{err}");
    }

    #[tokio::test]
    async fn files_under_way_are_bounded() {
        let name = |i: u32| format!("{i:04}");
        let mut packets: Vec<Packet> = (0..300).map(|i| stat(name(i))).collect();
        packets.extend((0..300).map(|i| data(i, Bytes::from_static(b"x"))));
        let err = received(packets).await.unwrap_err();
        assert!(matches!(err, TransferError::Open(_)), "{err}");
    }
}
