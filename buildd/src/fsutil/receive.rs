//! The receiving end.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use proto::fsutil::packet::PacketType;
use proto::fsutil::{Packet, Stat};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

use super::mode::has_data;
use super::queue::{Arrived, Reply, feed};
use super::{OrderCheck, TransferError};

/// Batches of packets on their way to the blocking thread.
const BACKLOG: usize = 16;

/// Bytes of a file. While they live, the sender has so much less room.
#[derive(Debug, Clone)]
pub struct Data {
    bytes: Bytes,
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

impl From<Bytes> for Data {
    /// Bytes that no sender waits for.
    fn from(bytes: Bytes) -> Self {
        Self { bytes, _room: None }
    }
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

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
    fn data(&mut self, id: u32, data: Data) -> Result<(), TransferError>;

    /// A file is complete.
    ///
    /// # Errors
    /// As for `entry`.
    fn end(&mut self, id: u32) -> Result<(), TransferError>;

    /// Nothing more has arrived yet. What a sink keeps of [`Data`] from here on may keep more from arriving.
    ///
    /// # Errors
    /// As for `entry`.
    fn pause(&mut self) -> Result<(), TransferError> {
        Ok(())
    }

    /// All is there; called once, at the end of a transfer that went well.
    ///
    /// # Errors
    /// As for `entry`.
    fn finish(&mut self) -> Result<(), TransferError> {
        Ok(())
    }
}

/// Receives a tree into `sink`, which comes back when all is there. `progress` is told of bytes as they arrive.
///
/// `outgoing` is closed at the end. Dropping the future ends the transfer, though not at once: `sink` is dropped when it
/// has come to rest.
///
/// # Errors
/// The sink failed, the sender reported an error or broke the protocol, or the stream broke.
pub async fn receive<S: Sink>(
    sink: S,
    incoming: impl Stream<Item = Result<Packet, Status>> + Send,
    outgoing: mpsc::UnboundedSender<Reply>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<S, TransferError> {
    let (tx, rx) = mpsc::channel(BACKLOG);
    let worker = tokio::task::spawn_blocking(move || Receiver::new(sink, outgoing).run(rx));
    let fed = feed(incoming, tx, progress).await;
    match worker.await.map_err(|_| TransferError::Cancelled)? {
        // Without FIN the thread only saw its channel close; what closed it says more.
        Err(TransferError::Truncated) => Err(fed.err().unwrap_or(TransferError::Truncated)),
        done => done,
    }
}

struct Receiver<S> {
    sink: S,
    outgoing: mpsc::UnboundedSender<Reply>,
    order: OrderCheck,
    next_id: u32,
    wanted: HashSet<u32>,
    /// Wanted, but not asked for yet.
    unasked: Vec<u32>,
    listed: bool,
    /// FIN was sent.
    finished: bool,
}

impl<S: Sink> Receiver<S> {
    fn new(sink: S, outgoing: mpsc::UnboundedSender<Reply>) -> Self {
        Self {
            sink,
            outgoing,
            order: OrderCheck::default(),
            next_id: 0,
            wanted: HashSet::new(),
            unasked: Vec::new(),
            listed: false,
            finished: false,
        }
    }

    fn run(mut self, mut arrived: mpsc::Receiver<Arrived>) -> Result<S, TransferError> {
        while let Some(Arrived { packets, room }) = arrived.blocking_recv() {
            match self.packets(packets, &room) {
                Ok(true) => return Ok(self.sink),
                Ok(false) => {}
                Err(err) => {
                    // The sender may be gone; then nobody needs to be told.
                    let _ = self.outgoing.send(Reply::Failed(err.full()));
                    return Err(err);
                }
            }
        }
        Err(TransferError::Truncated)
    }

    /// Takes packets that arrived together; `true` at the end.
    fn packets(
        &mut self,
        packets: Vec<Packet>,
        room: &Arc<OwnedSemaphorePermit>,
    ) -> Result<bool, TransferError> {
        for packet in packets {
            if self.packet(packet, room)? {
                return Ok(true);
            }
        }
        self.sink.pause()?;
        self.ask()?;
        Ok(false)
    }

    /// Takes a packet; `true` at the end.
    fn packet(&mut self, packet: Packet, room: &Arc<OwnedSemaphorePermit>) -> Result<bool, TransferError> {
        match packet.r#type() {
            PacketType::PacketStat => match packet.stat {
                Some(stat) => self.entry(stat)?,
                None => self.listed = true,
            },
            PacketType::PacketData => self.data(packet.id, packet.data, room)?,
            PacketType::PacketFin => return Ok(self.finished),
            PacketType::PacketErr => {
                return Err(TransferError::Peer(String::from_utf8_lossy(&packet.data).into_owned()));
            }
            PacketType::PacketReq => return Err(TransferError::Id(packet.id)),
        }
        if self.listed && self.wanted.is_empty() && !self.finished {
            self.sink.finish()?;
            self.finished = true;
            self.reply(Reply::Done)?;
        }
        Ok(false)
    }

    fn entry(&mut self, mut stat: Stat) -> Result<(), TransferError> {
        if self.listed {
            return Err(TransferError::Order(stat.path));
        }
        self.order.check(&stat)?;
        // No sink sets them, and entries may wait for long.
        stat.xattrs.clear();
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or(TransferError::Id(id))?;
        let has_data = has_data(stat.mode) && stat.linkname.is_empty();
        if self.sink.entry(id, stat)? && has_data {
            self.wanted.insert(id);
            self.unasked.push(id);
        }
        Ok(())
    }

    fn data(&mut self, id: u32, bytes: Bytes, room: &Arc<OwnedSemaphorePermit>) -> Result<(), TransferError> {
        if !self.wanted.contains(&id) {
            return Err(TransferError::Id(id));
        }
        if !bytes.is_empty() {
            return self.sink.data(id, Data { bytes, _room: Some(Arc::clone(room)) });
        }
        self.wanted.remove(&id);
        self.sink.end(id)
    }

    fn ask(&mut self) -> Result<(), TransferError> {
        match std::mem::take(&mut self.unasked) {
            ids if ids.is_empty() => Ok(()),
            ids => self.reply(Reply::Wanted(ids)),
        }
    }

    fn reply(&self, reply: Reply) -> Result<(), TransferError> {
        self.outgoing.send(reply).map_err(|_| TransferError::Truncated)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::queue::ROOM;
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
        let (tx, mut rx) = mpsc::unbounded_channel();
        let asked = tokio::spawn(async move { while rx.recv().await.is_some() {} });
        let incoming = futures_util::stream::iter(packets.into_iter().map(Ok));
        let done = receive(DirWriter::new(dir.path(), Owners::Mine), incoming, tx, &|_| ()).await;
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
        let large = Bytes::from(vec![0; ROOM as usize + 1]);
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
