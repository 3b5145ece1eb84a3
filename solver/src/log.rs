//! What a running vertex has said so far, for those who join late.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::traits::{Status, Stream, Update};

/// Output beyond this many bytes goes to an unlinked file: a step that prints 100 MB must not fill the memory.
const IN_MEMORY: usize = 1 << 20;

/// The whole output of a vertex and the latest status of each of its parts.
#[derive(Default)]
pub(crate) struct LogBuffer {
    head: Vec<u8>,
    spill: Option<File>,
    statuses: BTreeMap<String, Status>,
}

impl LogBuffer {
    pub(crate) fn push(&mut self, update: Update) {
        match update {
            Update::Log { stream, data, at } => self.append(&encode(stream, at, &data)),
            Update::Status(s) => {
                self.statuses.insert(s.id.clone(), s);
            }
        }
    }

    fn append(&mut self, frame: &[u8]) {
        if self.spill.is_none() && self.head.len() + frame.len() > IN_MEMORY {
            self.spill = tempfile::tempfile().ok();
        }
        match &mut self.spill {
            // Where no file can be had, late joiners miss the rest; those who listen now have seen it.
            Some(f) => drop(f.write_all(frame)),
            None if self.head.len() + frame.len() <= IN_MEMORY => self.head.extend_from_slice(frame),
            None => {}
        }
    }

    /// Repeats everything, in order.
    pub(crate) fn replay(&mut self, mut to: impl FnMut(Update)) {
        for s in self.statuses.values() {
            to(Update::Status(s.clone()));
        }
        let mut head = &self.head[..];
        while let Some(u) = decode(&mut head) {
            to(u);
        }
        if let Some(f) = &mut self.spill
            && f.seek(SeekFrom::Start(0)).is_ok()
        {
            let mut r = std::io::BufReader::new(&mut *f);
            while let Some(u) = decode(&mut r) {
                to(u);
            }
            let _ = f.seek(SeekFrom::End(0));
        }
    }
}

/// Stream (1 byte), nanoseconds since 1970 (8, little-endian), length (4, little-endian), bytes.
fn encode(stream: Stream, at: SystemTime, data: &[u8]) -> Vec<u8> {
    let ns = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let mut frame = Vec::with_capacity(13 + data.len());
    frame.push(stream as u8);
    frame.extend_from_slice(&ns.to_le_bytes());
    frame.extend_from_slice(&(data.len() as u32).to_le_bytes());
    frame.extend_from_slice(data);
    frame
}

fn decode(r: &mut impl Read) -> Option<Update> {
    let mut head = [0; 13];
    r.read_exact(&mut head).ok()?;
    let (ns, len) = head[1..].split_at(8);
    let ns = u64::from_le_bytes(ns.try_into().ok()?);
    let mut data = vec![0; u32::from_le_bytes(len.try_into().ok()?) as usize];
    r.read_exact(&mut data).ok()?;
    let stream = if head[0] == 1 { Stream::Stdout } else { Stream::Stderr };
    Some(Update::Log { stream, data: Arc::from(data), at: SystemTime::UNIX_EPOCH + Duration::from_nanos(ns) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_all_across_the_spill() {
        let mut log = LogBuffer::default();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let chunk =
            |i: usize| Update::Log { stream: Stream::Stderr, data: Arc::from(vec![i as u8; 1000]), at };
        for i in 0..3000 {
            log.push(chunk(i));
        }
        assert!(log.spill.is_some() && log.head.len() <= IN_MEMORY);
        for _ in 0..2 {
            let mut n = 0;
            log.replay(|u| {
                assert_eq!(u, chunk(n));
                n += 1;
            });
            assert_eq!(n, 3000);
        }
    }
}
