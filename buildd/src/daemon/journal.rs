//! What a build has told so far: an append-only sequence of status messages that any number of readers follow.
//!
//! The first [`IN_MEMORY`] bytes stay in memory, the rest goes to an unlinked file: a step that prints 100 MB,
//! or a client that reads slowly, must not fill the memory. A reader is an offset, so a late one misses nothing.
//!
//! On a full disk output is lost, but nothing else: what is told of steps, their ends above all, goes to memory then.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prost::Message;
use proto::control::StatusResponse;
use tokio::sync::watch;

const IN_MEMORY: usize = 512 << 10;
/// How much a reader is given at a time: well below gRPC's message limit.
const CHUNK: u64 = 128 << 10;

/// The status messages of one build.
#[derive(Debug)]
pub(super) struct Journal {
    store: Mutex<Store>,
    /// Length in bytes, and whether it is complete.
    grown: watch::Sender<(u64, bool)>,
}

#[derive(Debug)]
struct Store {
    head: Vec<u8>,
    /// Where the unlinked file is made.
    dir: PathBuf,
    spill: Option<File>,
    spilled: u64,
    /// What comes after the file, once it takes no more.
    tail: Vec<u8>,
    /// The file takes no more.
    full: bool,
}

impl Journal {
    /// An empty one, whose file will be in `dir`.
    pub(super) fn new(dir: PathBuf) -> Self {
        let (head, tail) = (Vec::new(), Vec::new());
        let store = Store { head, dir, spill: None, spilled: 0, tail, full: false };
        Self { store: Mutex::new(store), grown: watch::channel((0, false)).0 }
    }

    /// Appends a message.
    pub(super) fn push(&self, message: &StatusResponse) {
        let mut s = self.lock();
        let added = s.append(message);
        let len = s.len();
        drop(s);
        if added {
            self.grown.send_modify(|g| g.0 = len);
        }
    }

    /// Says that nothing more will come.
    pub(super) fn close(&self) {
        self.grown.send_modify(|g| g.1 = true);
    }

    /// The messages from `offset` on, merged into one, and the next offset; waits for some. `None` at the end.
    pub(super) async fn read(&self, offset: u64) -> Option<(StatusResponse, u64)> {
        let mut rx = self.grown.subscribe();
        let (len, _) = *rx.wait_for(|(len, closed)| *len > offset || *closed).await.ok()?;
        (len > offset).then(|| self.lock().read(offset, len))
    }

    /// The messages from `offset` on that are there already, as [`Self::read`]. Blocking.
    pub(super) fn so_far(&self, offset: u64) -> Option<(StatusResponse, u64)> {
        let store = self.lock();
        let len = store.len();
        (len > offset).then(|| store.read(offset, len))
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn len(&self) -> u64 {
        (self.head.len() + self.tail.len()) as u64 + self.spilled
    }

    /// Says whether anything was kept.
    fn append(&mut self, message: &StatusResponse) -> bool {
        let frame = message.encode_length_delimited_to_vec();
        if self.spill.is_none() && !self.full && self.head.len() + frame.len() <= IN_MEMORY {
            self.head.extend_from_slice(&frame);
            return true;
        }
        if !self.full {
            match self.write(&frame) {
                Ok(()) => return true,
                Err(e) => tracing::warn!("output of steps is lost: {}: {e}", self.dir.display()),
            }
            self.full = true;
        }
        let rest = StatusResponse { logs: Vec::new(), ..message.clone() };
        if rest.encoded_len() == 0 {
            return false;
        }
        self.tail.extend_from_slice(&rest.encode_length_delimited_to_vec());
        true
    }

    fn write(&mut self, frame: &[u8]) -> std::io::Result<()> {
        let file: &File = match &self.spill {
            Some(file) => file,
            None => self.spill.insert(tempfile::tempfile_in(&self.dir)?),
        };
        file.write_all_at(frame, self.spilled)?;
        self.spilled += frame.len() as u64;
        Ok(())
    }

    /// Whole frames from `offset`, at least one, at most about [`CHUNK`] bytes.
    fn read(&self, mut offset: u64, len: u64) -> (StatusResponse, u64) {
        let mut merged = StatusResponse::default();
        let end = len.min(offset + CHUNK);
        while offset < end {
            let Some((frame, size)) = self.frame(offset) else { return (merged, len) };
            offset += size;
            merged.vertexes.extend(frame.vertexes);
            merged.statuses.extend(frame.statuses);
            merged.logs.extend(frame.logs);
            merged.warnings.extend(frame.warnings);
        }
        (merged, offset)
    }

    fn frame(&self, offset: u64) -> Option<(StatusResponse, u64)> {
        let head = self.head.len() as u64;
        if offset < head {
            return decode(&self.head[offset as usize..]);
        }
        if offset >= head + self.spilled {
            return decode(&self.tail[(offset - head - self.spilled) as usize..]);
        }
        let file = self.spill.as_ref()?;
        let mut prefix = [0; 10];
        let at = offset - head;
        let n = file.read_at(&mut prefix, at).ok()?;
        let mut rest = &prefix[..n];
        let size = prost::encoding::decode_varint(&mut rest).ok()?;
        let prefix_len = (n - rest.len()) as u64;
        let mut body = vec![0; usize::try_from(size).ok()?];
        file.read_exact_at(&mut body, at + prefix_len).ok()?;
        Some((StatusResponse::decode(&body[..]).ok()?, prefix_len + size))
    }
}

/// The first message of those in memory, and its size there.
fn decode(bytes: &[u8]) -> Option<(StatusResponse, u64)> {
    let mut rest = bytes;
    let frame = StatusResponse::decode_length_delimited(&mut rest).ok()?;
    Some((frame, (bytes.len() - rest.len()) as u64))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::control::{Vertex, VertexLog};

    use super::*;

    fn log(i: usize) -> StatusResponse {
        let log = VertexLog { vertex: i.to_string(), msg: vec![0; 1000].into(), ..VertexLog::default() };
        StatusResponse { logs: vec![log], ..StatusResponse::default() }
    }

    #[tokio::test]
    async fn every_reader_gets_all_in_order_across_the_spill() {
        let dir = tempfile::tempdir().unwrap();
        let j = Arc::new(Journal::new(dir.path().to_owned()));
        let reader = |j: Arc<Journal>| async move {
            let (mut offset, mut seen) = (0, 0);
            while let Some((m, next)) = j.read(offset).await {
                assert!(m.encoded_len() < 256 << 10);
                for l in m.logs {
                    assert_eq!(l.vertex, seen.to_string());
                    seen += 1;
                }
                offset = next;
            }
            seen
        };
        let early = tokio::spawn(reader(j.clone()));
        for i in 0..3000 {
            j.push(&log(i));
            if i % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        j.close();
        assert!(j.lock().spill.is_some() && j.lock().head.len() <= IN_MEMORY);
        assert_eq!(early.await.unwrap(), 3000);
        assert_eq!(reader(j).await, 3000);
    }

    #[tokio::test]
    async fn on_a_full_disk_steps_still_end() {
        let j = Journal::new("/nonexistent/place".into());
        (0..1000).for_each(|i| j.push(&log(i)));
        let vertex = Vertex { digest: "last".to_owned(), ..Vertex::default() };
        j.push(&StatusResponse { vertexes: vec![vertex], ..log(1000) });
        j.close();
        let (mut offset, mut logs, mut ended) = (0, 0, Vec::new());
        while let Some((m, next)) = j.read(offset).await {
            (offset, logs) = (next, logs + m.logs.len());
            ended.extend(m.vertexes.into_iter().map(|v| v.digest));
        }
        assert_eq!(ended, ["last"]);
        assert!(logs > 100 && logs < 1000, "what is in memory is told: {logs}");
    }
}
