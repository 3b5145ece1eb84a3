//! The sending end.

use std::collections::HashSet;
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

/// Paths by file id, until they are asked for. `None` stands for entries without data.
type Paths = Arc<Mutex<Vec<Option<String>>>>;

/// Sends `files` until the receiver has all it wants.
///
/// # Errors
/// The tree could not be read, the receiver reported an error, or the stream broke.
pub async fn send(
    files: Arc<dyn Files>,
    incoming: impl Stream<Item = Result<Packet, Status>> + Send,
    outgoing: mpsc::Sender<Packet>,
) -> Result<(), TransferError> {
    let paths: Paths = Arc::default();
    let (wanted, queue) = mpsc::unbounded_channel();
    let walker = tokio::task::spawn_blocking({
        let (files, paths, out) = (Arc::clone(&files), Arc::clone(&paths), outgoing.clone());
        move || walk(&*files, &paths, &out)
    });
    let reader = tokio::task::spawn_blocking({
        let out = outgoing.clone();
        move || send_files(&*files, queue, &out)
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
        let _ = outgoing.send(packet).await;
        return Err(err);
    }
    requests.await?;
    finish(reader, outgoing).await
}

async fn finish(
    reader: tokio::task::JoinHandle<Result<(), TransferError>>,
    outgoing: mpsc::Sender<Packet>,
) -> Result<(), TransferError> {
    reader.await.map_err(|_| TransferError::Cancelled)??;
    let fin = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
    outgoing.send(fin).await.map_err(|_| TransferError::Truncated)
}

/// Reads requests until FIN; dropping `wanted` then ends the reader.
async fn serve_requests(
    incoming: impl Stream<Item = Result<Packet, Status>>,
    paths: &Paths,
    wanted: mpsc::UnboundedSender<(u32, String)>,
) -> Result<(), TransferError> {
    tokio::pin!(incoming);
    let mut asked = HashSet::new();
    while let Some(packet) = incoming.next().await {
        let packet = packet.map_err(|status| TransferError::Stream(Box::new(status)))?;
        match packet.r#type() {
            PacketType::PacketReq => {
                let path = paths
                    .lock()
                    .expect("no holder of this lock panics")
                    .get(packet.id as usize)
                    .cloned()
                    .flatten()
                    .filter(|_| asked.insert(packet.id))
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

fn walk(files: &dyn Files, paths: &Paths, out: &mpsc::Sender<Packet>) -> Result<(), TransferError> {
    files.walk(&mut |stat| {
        let path = has_data(stat.mode).then(|| stat.path.clone());
        paths.lock().expect("no holder of this lock panics").push(path);
        let packet = Packet { r#type: PacketType::PacketStat.into(), stat: Some(stat), ..Packet::default() };
        out.blocking_send(packet).map_err(|_| TransferError::Truncated)
    })?;
    let end = Packet { r#type: PacketType::PacketStat.into(), ..Packet::default() };
    out.blocking_send(end).map_err(|_| TransferError::Truncated)
}

/// Sends what is asked for; tells the receiver, too, of a file that cannot be read. (fsutil would send it as empty.)
fn send_files(
    files: &dyn Files,
    mut queue: mpsc::UnboundedReceiver<(u32, String)>,
    out: &mpsc::Sender<Packet>,
) -> Result<(), TransferError> {
    let mut buffer = vec![0; CHUNK];
    while let Some((id, path)) = queue.blocking_recv() {
        if let Err(err) = send_file(files, id, &path, &mut buffer, out) {
            let packet =
                Packet { r#type: PacketType::PacketErr.into(), data: err.full().into(), ..Packet::default() };
            // The receiver may be gone; then nobody needs to be told.
            let _ = out.blocking_send(packet);
            return Err(err);
        }
    }
    Ok(())
}

fn send_file(
    files: &dyn Files,
    id: u32,
    path: &str,
    buffer: &mut [u8],
    out: &mpsc::Sender<Packet>,
) -> Result<(), TransferError> {
    let send = |data: Bytes| {
        let packet = Packet { r#type: PacketType::PacketData.into(), id, data, ..Packet::default() };
        out.blocking_send(packet).map_err(|_| TransferError::Truncated)
    };
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
