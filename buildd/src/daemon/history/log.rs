//! Logs of past builds: blobs of status messages, each after its length as four bytes, little-endian
//! (BuildKit `llbsolver/history/buildhistory.go`, ImportStatus).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};

use cache::oci::VerifiedReader;
use cache::store::{BlobPurpose, Lease, StepCounts, Store, StoreError};
use prost::Message;
use proto::control::StatusResponse;
use solver::Digest;
use tonic::Status;

use crate::daemon::control::store_status;
use crate::daemon::journal::Journal;

/// The media type of a log.
pub(super) const MEDIA_TYPE: &str = "application/vnd.buildkit.status.v0";
/// No message is longer, in bytes; gRPC would not take it either.
const MAX_MESSAGE: u32 = 16 << 20;

/// Writes all that a build told into a blob, held by `lease`, and counts its steps.
pub(super) fn keep(
    store: &Store,
    lease: &Lease,
    journal: &Journal,
) -> Result<(Digest, StepCounts), StoreError> {
    let mut writer = BufWriter::new(store.blobs().writer()?);
    let mut counter = Counter::default();
    let mut offset = 0;
    let written = loop {
        let Some((message, next)) = journal.so_far(offset) else { break writer.flush() };
        offset = next;
        counter.count(&message);
        if let Err(e) = write(&mut writer, &message) {
            break Err(e);
        }
    };
    let failed = |source| StoreError::Io { action: "write", path: store.root().join("tmp"), source };
    written.map_err(failed)?;
    let writer = writer.into_inner().map_err(|e| failed(e.into_error()))?;
    let digest = writer.commit(lease, None, BlobPurpose::default())?;
    Ok((digest, counter.counts()))
}

fn write(writer: &mut impl Write, message: &StatusResponse) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(&bytes)
}

/// Counts vertices as BuildKit does: each once, however often it is told of.
#[derive(Debug, Default)]
struct Counter {
    /// By digest: whether it was cached, and whether it ended.
    vertices: HashMap<String, (bool, bool)>,
    warnings: u32,
}

impl Counter {
    fn count(&mut self, message: &StatusResponse) {
        self.warnings += message.warnings.len() as u32;
        for vertex in &message.vertexes {
            let (cached, completed) = self.vertices.entry(vertex.digest.clone()).or_default();
            *cached |= vertex.cached;
            *completed |= vertex.completed.is_some();
        }
    }

    fn counts(&self) -> StepCounts {
        let count = |of: fn(&(bool, bool)) -> bool| self.vertices.values().filter(|v| of(v)).count() as u32;
        StepCounts {
            total: self.vertices.len() as u32,
            completed: count(|v| v.1),
            cached: count(|v| v.0),
            warnings: self.warnings,
        }
    }
}

/// Reads a log's messages, and verifies the whole at its end.
#[derive(Debug)]
pub(in crate::daemon) struct LogReader {
    input: BufReader<VerifiedReader<File>>,
    store: Store,
    digest: Digest,
    build: String,
}

impl LogReader {
    pub(super) fn open(store: &Store, digest: Digest, build: &str) -> Result<Self, Status> {
        let blobs = store.blobs();
        let file = blobs.open(&digest).map_err(store_status)?;
        let size = blobs.size(&digest).map_err(store_status)?.unwrap_or_default();
        let input = BufReader::new(VerifiedReader::new(file, digest, size));
        Ok(Self { input, store: store.clone(), digest, build: build.to_owned() })
    }

    /// The next message; `None` at the end. Blocking.
    ///
    /// # Errors
    /// A damaged log: it is then gone.
    pub(in crate::daemon) fn next_message(&mut self) -> Result<Option<StatusResponse>, Status> {
        self.read().map_err(|reason| {
            if let Err(e) = self.store.blobs().discard(&self.digest) {
                tracing::warn!("cannot remove a damaged log: {e}");
            }
            Status::data_loss(format!(
                "the log of build `{}` (blob `{}`) is damaged: {reason}",
                self.build, self.digest
            ))
        })
    }

    fn read(&mut self) -> Result<Option<StatusResponse>, io::Error> {
        let mut length = [0; 4];
        // Zero bytes are the end, for which the reader has verified the digest; less than four are an error.
        match self.input.read(&mut length[..1])? {
            0 => return Ok(None),
            _ => self.input.read_exact(&mut length[1..])?,
        }
        let length = u32::from_le_bytes(length);
        if length > MAX_MESSAGE {
            return Err(io::Error::other("a message is too long"));
        }
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes)?;
        StatusResponse::decode(&bytes[..]).map(Some).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use cache::store::StoreOptions;
    use proto::control::{Vertex, VertexLog, VertexWarning};

    use super::*;

    fn vertex(digest: &str, cached: bool, completed: bool) -> StatusResponse {
        let completed = completed.then(prost_types::Timestamp::default);
        let vertex = Vertex { digest: digest.into(), cached, completed, ..Vertex::default() };
        StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() }
    }

    fn lines(reader: &mut LogReader) -> Result<Vec<String>, Status> {
        let mut lines = Vec::new();
        while let Some(message) = reader.next_message()? {
            lines.extend(message.logs.into_iter().map(|l| String::from_utf8(l.msg.to_vec()).unwrap()));
        }
        Ok(lines)
    }

    #[test]
    fn a_log_is_kept_whole_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
        let (lease, journal) = (store.lease(), Journal::new(store.tmp()));
        for (digest, cached, completed) in [
            ("a", false, false),
            ("a", false, true),
            ("b", true, true),
            ("b", true, true),
            ("c", false, false),
        ] {
            journal.push(&vertex(digest, cached, completed));
        }
        journal.push(&StatusResponse { warnings: vec![VertexWarning::default()], ..Default::default() });
        // More than stays in memory.
        let told: Vec<String> = (0..3000).map(|n| format!("{n:1000}")).collect();
        for line in &told {
            let log = VertexLog { msg: line.clone().into_bytes().into(), ..VertexLog::default() };
            journal.push(&StatusResponse { logs: vec![log], ..StatusResponse::default() });
        }
        let (digest, counts) = keep(&store, &lease, &journal).unwrap();
        assert_eq!(counts, StepCounts { total: 3, completed: 2, cached: 1, warnings: 1 });
        assert_eq!(lines(&mut LogReader::open(&store, digest, "x").unwrap()).unwrap(), told);
    }

    #[test]
    fn a_damaged_log_is_named_and_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
        let (lease, journal) = (store.lease(), Journal::new(store.tmp()));
        let log = VertexLog { msg: vec![b'x'; 100].into(), ..VertexLog::default() };
        journal.push(&StatusResponse { logs: vec![log], ..StatusResponse::default() });
        let (digest, _) = keep(&store, &lease, &journal).unwrap();
        let hex = digest.hex();
        let path = dir.path().join("blobs/sha256").join(&hex[..2]).join(&hex);
        let mut bytes = fs_err::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs_err::write(&path, bytes).unwrap();
        let error = lines(&mut LogReader::open(&store, digest, "x").unwrap()).unwrap_err();
        assert_eq!(error.code(), tonic::Code::DataLoss);
        assert!(error.message().contains("build `x`") && error.message().contains(&hex), "{error}");
        assert!(LogReader::open(&store, digest, "x").is_err(), "it is gone");
    }
}
