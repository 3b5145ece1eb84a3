//! What a build has told so far: an append-only sequence of status messages that any number of readers follow.
//!
//! The first [`IN_MEMORY`] bytes stay in memory, the rest goes to an unlinked file: a step that prints 100 MB,
//! or a client that reads slowly, must not fill the memory. A reader is an offset, so a late one misses nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;
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

#[derive(Debug, Default)]
struct Store {
    head: Vec<u8>,
    spill: Option<File>,
    spilled: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self { store: Mutex::default(), grown: watch::channel((0, false)).0 }
    }
}

impl Journal {
    /// Appends a message.
    pub(super) fn push(&self, message: &StatusResponse) {
        let frame = message.encode_length_delimited_to_vec();
        let mut s = self.lock();
        let added = s.append(&frame);
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
        self.head.len() as u64 + self.spilled
    }

    fn append(&mut self, frame: &[u8]) -> bool {
        if self.spill.is_none() {
            if self.head.len() + frame.len() <= IN_MEMORY {
                self.head.extend_from_slice(frame);
                return true;
            }
            self.spill =
                tempfile::tempfile().inspect_err(|e| tracing::warn!("no file for build logs: {e}")).ok();
        }
        let Some(file) = &self.spill else { return false };
        if let Err(e) = file.write_all_at(frame, self.spilled) {
            tracing::warn!("build log lost: {e}");
            return false;
        }
        self.spilled += frame.len() as u64;
        true
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
            let mut buf = &self.head[offset as usize..];
            let before = buf.len();
            let frame = StatusResponse::decode_length_delimited(&mut buf).ok()?;
            return Some((frame, (before - buf.len()) as u64));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::control::VertexLog;

    use super::*;

    fn log(i: usize) -> StatusResponse {
        let log = VertexLog { vertex: i.to_string(), msg: vec![0; 1000].into(), ..VertexLog::default() };
        StatusResponse { logs: vec![log], ..StatusResponse::default() }
    }

    #[tokio::test]
    async fn every_reader_gets_all_in_order_across_the_spill() {
        let j = Arc::new(Journal::default());
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
}
