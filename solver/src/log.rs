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
    /// Nothing more is kept: a file could not be had or filled. Those who listen now see everything all the same.
    cut: bool,
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
            self.cut |= self.spill.is_none();
        }
        if self.cut {
            return;
        }
        match &mut self.spill {
            // A frame that was written in part must stay the last one, or those after it could not be read.
            Some(file) => self.cut = file.write_all(frame).is_err(),
            None => self.head.extend_from_slice(frame),
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
            self.cut |= f.seek(SeekFrom::End(0)).is_err();
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
    fn keeps_what_was_whole_when_the_disk_is_full() {
        let at = SystemTime::UNIX_EPOCH;
        let chunk = |n: u8| Update::Log { stream: Stream::Stdout, data: Arc::from(vec![n; 1000]), at };
        let mut log = LogBuffer::default();
        (0..2000).for_each(|_| log.push(chunk(1)));
        // A file opened for reading refuses to be written, as a full disk does.
        let whole = log.spill.replace(File::open("/dev/null").unwrap()).unwrap();
        log.push(chunk(2));
        log.spill = Some(whole);
        log.push(chunk(3));
        let mut seen = Vec::new();
        log.replay(|u| seen.push(u));
        assert_eq!(seen, vec![chunk(1); 2000]);
    }

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
