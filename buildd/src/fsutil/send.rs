//! The sending end.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use proto::fsutil::packet::PacketType;
use proto::fsutil::{Packet, Stat};
use tokio::sync::mpsc;
use tonic::Status;

use super::TransferError;
use super::mode::has_data;

/// Bytes of file data in one packet. Large enough to make the cost of a message small, small enough for Go's limits.
const CHUNK: usize = 128 << 10;

/// Bytes of file data, and number of packets, that are collected before they are handed on, unless nothing more is to be done.
const TOGETHER_BYTES: usize = 64 << 10;
const TOGETHER: usize = 128;

/// A tree of files to send.
pub trait Files: Send + Sync + 'static {
    /// Hands all entries to `emit`: names sorted bytewise within a directory, each directory before its entries.
    ///
    /// # Errors
    /// Unreadable entries; also passes on what `emit` says.
    fn walk(&self, emit: &mut dyn FnMut(Stat) -> Result<(), TransferError>) -> Result<(), TransferError>;

    /// Opens a file that `walk` listed.
    ///
    /// # Errors
    /// The file is gone or cannot be read, which ends the transfer.
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>>;
}

/// Paths by file id, until they are asked for. `None` stands for entries without data, and for those asked for.
type Paths = Arc<Mutex<Vec<Option<String>>>>;

/// Where packets go, several at a time.
struct Outgoing {
    to: mpsc::Sender<Vec<Packet>>,
    packets: Vec<Packet>,
    bytes: usize,
}

impl Outgoing {
    const fn new(to: mpsc::Sender<Vec<Packet>>) -> Self {
        Self { to, packets: Vec::new(), bytes: 0 }
    }

    fn send(&mut self, packet: Packet) -> Result<(), TransferError> {
        self.bytes += packet.data.len();
        self.packets.push(packet);
        if self.packets.len() >= TOGETHER || self.bytes >= TOGETHER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TransferError> {
        self.bytes = 0;
        let packets = std::mem::take(&mut self.packets);
        if packets.is_empty() {
            return Ok(());
        }
        self.packets.reserve(packets.len());
        self.to.blocking_send(packets).map_err(|_| TransferError::Truncated)
    }
}

/// Sends `files` until the receiver has all it wants.
///
/// # Errors
/// The tree could not be read, the receiver reported an error, or the stream broke.
pub async fn send(
    files: Arc<dyn Files>,
    incoming: impl Stream<Item = Result<Packet, Status>> + Send,
    outgoing: mpsc::Sender<Vec<Packet>>,
) -> Result<(), TransferError> {
    let paths: Paths = Arc::default();
    let (wanted, queue) = mpsc::unbounded_channel();
    let walker = tokio::task::spawn_blocking({
        let (files, paths, out) = (Arc::clone(&files), Arc::clone(&paths), outgoing.clone());
        move || walk(&*files, &paths, Outgoing::new(out))
    });
    let reader = tokio::task::spawn_blocking({
        let out = outgoing.clone();
        move || send_files(&*files, queue, Outgoing::new(out))
    });
    let requests = serve_requests(incoming, &paths, wanted);
    tokio::pin!(requests);
    let mut walker = walker;
    // The walk first: its error explains the receiver's.
    let walked = tokio::select! {
        walked = &mut walker => walked.map_err(|_| TransferError::Cancelled)?,
        done = &mut requests => {
            done?;
            walker.await.map_err(|_| TransferError::Cancelled)??;
            return finish(reader, outgoing).await;
        }
    };
    if let Err(err) = walked {
        let packet =
            Packet { r#type: PacketType::PacketErr.into(), data: err.full().into(), ..Packet::default() };
        // The receiver may be gone; then nobody needs to be told.
        let _ = outgoing.send(vec![packet]).await;
        return Err(err);
    }
    requests.await?;
    finish(reader, outgoing).await
}

async fn finish(
    reader: tokio::task::JoinHandle<Result<(), TransferError>>,
    outgoing: mpsc::Sender<Vec<Packet>>,
) -> Result<(), TransferError> {
    reader.await.map_err(|_| TransferError::Cancelled)??;
    let fin = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
    outgoing.send(vec![fin]).await.map_err(|_| TransferError::Truncated)
}

/// Reads requests until FIN; dropping `wanted` then ends the reader.
async fn serve_requests(
    incoming: impl Stream<Item = Result<Packet, Status>>,
    paths: &Paths,
    wanted: mpsc::UnboundedSender<(u32, String)>,
) -> Result<(), TransferError> {
    tokio::pin!(incoming);
    while let Some(packet) = incoming.next().await {
        let packet = packet.map_err(|status| TransferError::Stream(Box::new(status)))?;
        match packet.r#type() {
            PacketType::PacketReq => {
                let path = paths
                    .lock()
                    .expect("no holder of this lock panics")
                    .get_mut(packet.id as usize)
                    .and_then(Option::take)
                    .ok_or(TransferError::Id(packet.id))?;
                wanted.send((packet.id, path)).map_err(|_| TransferError::Truncated)?;
            }
            PacketType::PacketFin => return Ok(()),
            PacketType::PacketErr => {
                return Err(TransferError::Peer(String::from_utf8_lossy(&packet.data).into_owned()));
            }
            PacketType::PacketStat | PacketType::PacketData => {}
        }
    }
    Err(TransferError::Truncated)
}

fn walk(files: &dyn Files, paths: &Paths, mut out: Outgoing) -> Result<(), TransferError> {
    files.walk(&mut |stat| {
        let path = has_data(stat.mode).then(|| stat.path.clone());
        paths.lock().expect("no holder of this lock panics").push(path);
        out.send(Packet { r#type: PacketType::PacketStat.into(), stat: Some(stat), ..Packet::default() })
    })?;
    out.send(Packet { r#type: PacketType::PacketStat.into(), ..Packet::default() })?;
    out.flush()
}

/// Sends what is asked for; tells the receiver, too, of a file that cannot be read. (fsutil would send it as empty.)
fn send_files(
    files: &dyn Files,
    mut queue: mpsc::UnboundedReceiver<(u32, String)>,
    mut out: Outgoing,
) -> Result<(), TransferError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let next = match queue.try_recv() {
            Ok(next) => Some(next),
            Err(_) => {
                out.flush()?;
                queue.blocking_recv()
            }
        };
        let Some((id, path)) = next else { return Ok(()) };
        if let Err(err) = send_file(files, id, &path, &mut buffer, &mut out) {
            let data = err.full().into();
            // The receiver may be gone; then nobody needs to be told.
            let _ = out
                .send(Packet { r#type: PacketType::PacketErr.into(), data, ..Packet::default() })
                .and_then(|()| out.flush());
            return Err(err);
        }
    }
}

fn send_file(
    files: &dyn Files,
    id: u32,
    path: &str,
    buffer: &mut [u8],
    out: &mut Outgoing,
) -> Result<(), TransferError> {
    let mut send =
        |data| out.send(Packet { r#type: PacketType::PacketData.into(), id, data, ..Packet::default() });
    let mut file = files.open(path).map_err(|e| TransferError::io(path, e))?;
    loop {
        let n = read(&mut *file, buffer).map_err(|e| TransferError::io(path, e))?;
        if n == 0 {
            return send(Bytes::new());
        }
        send(Bytes::copy_from_slice(&buffer[..n]))?;
    }
}

fn read(file: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
