//! What is known of one vertex, or of one progress group.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use proto::control::{Vertex, VertexLog, VertexStatus};

use super::interval::{Intervals, Nanos, nanos};
use crate::errdetails::without_checksum;

/// Last log lines that are kept, to be shown when the vertex fails.
pub(super) const KEPT_LINES: usize = 10;

/// Bytes of a line that are kept; the rest of a longer one is not shown again.
const KEPT_BYTES: usize = 1 << 10;

/// A part of a vertex, such as a transfer.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) id: String,
    pub(super) current: i64,
    pub(super) total: i64,
    pub(super) timestamp: Nanos,
    pub(super) started: Option<Nanos>,
    pub(super) completed: Option<Nanos>,
    /// Changed since it was printed.
    pub(super) changed: bool,
    /// The count and time that were printed last.
    pub(super) printed: Option<(i64, Nanos)>,
}

/// A vertex as it is shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) cached: bool,
    pub(super) error: String,
    pub(super) intervals: Intervals,
    /// `#N`; 0 until it is printed.
    pub(super) index: usize,
    /// Not to be shown: a member of a group, or a group of weak members only.
    pub(super) hidden: bool,
    pub(super) parts: Vec<Part>,
    by_id: HashMap<String, usize>,
    pub(super) warnings: Vec<String>,
    pub(super) warnings_printed: usize,
    /// Output not printed yet; each line has its time in front.
    pub(super) output: Vec<u8>,
    /// The last line that came has not ended.
    open_line: bool,
    /// The last line that was printed has not ended; `output` goes on with it.
    continues: bool,
    /// How that line begins, to print it again when another vertex came between.
    open_text: Vec<u8>,
    /// The last lines, without newlines.
    pub(super) tail: VecDeque<Vec<u8>>,
    /// Updates since something was printed, and when the first of them came.
    pub(super) updates: usize,
    pub(super) waiting_since: Option<Instant>,
    /// What was reported last, to tell what is new.
    last_seen: Option<Seen>,
    pub(super) members: HashSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    name: String,
    started: Option<Nanos>,
    completed: Option<Nanos>,
    cached: bool,
    error: String,
}

impl Shown {
    /// A group, hidden until a member that is not weak starts.
    pub(super) fn group(name: String) -> Self {
        Self { name, hidden: true, ..Self::default() }
    }

    pub(super) fn started(&self) -> bool {
        self.intervals.started()
    }

    pub(super) fn completed(&self) -> bool {
        self.intervals.completed()
    }

    /// Cancelled rather than failed.
    pub(super) fn canceled(&self) -> bool {
        self.error.ends_with("context canceled")
    }

    pub(super) fn failed(&self) -> bool {
        !self.error.is_empty() && !self.canceled()
    }

    /// Counts an update towards the vertex's share of the display.
    pub(super) fn count(&mut self) {
        if self.updates == 0 {
            self.waiting_since = Some(Instant::now());
        }
        self.updates += 1;
    }

    /// Takes a vertex message; `true` when it says something new.
    pub(super) fn update(&mut self, vertex: &Vertex) -> bool {
        let started = vertex.started.as_ref().map(nanos);
        let completed = vertex.completed.as_ref().map(nanos);
        // A late announcement does not undo a start.
        if self.started() && started.is_none() {
            return false;
        }
        self.name.clone_from(&vertex.name);
        self.cached = vertex.cached;
        without_checksum(&vertex.error).clone_into(&mut self.error);
        let Some(start) = started else { return false };
        self.intervals.set(start, completed);
        let seen = Seen {
            name: vertex.name.clone(),
            started,
            completed,
            cached: vertex.cached,
            error: vertex.error.clone(),
        };
        let new = self.last_seen.as_ref() != Some(&seen);
        self.last_seen = Some(seen);
        if new {
            self.count();
        }
        new
    }

    pub(super) fn status(&mut self, status: &VertexStatus) {
        let part = Part {
            id: status.id.clone(),
            current: status.current,
            total: status.total,
            timestamp: status.timestamp.as_ref().map_or(0, nanos),
            started: status.started.as_ref().map(nanos),
            completed: status.completed.as_ref().map(nanos),
            changed: true,
            printed: None,
        };
        match self.by_id.get(&status.id) {
            Some(&at) => {
                let printed = self.parts[at].printed;
                self.parts[at] = Part { printed, ..part };
            }
            // Without a start it is only announced.
            None if part.started.is_none() => {}
            None => {
                self.by_id.insert(status.id.clone(), self.parts.len());
                self.parts.push(part);
            }
        }
        self.count();
    }

    /// Takes output: every line that begins gets the time since the vertex's start in front.
    pub(super) fn log(&mut self, log: VertexLog) {
        let start = self.intervals.last().map(|(start, _)| start);
        let at = log.timestamp.as_ref().map(nanos).zip(start).map_or(0, |(at, start)| at - start);
        let stamp = stamp(at);
        self.append(&stamp, &log.msg);
        self.count();
    }

    fn append(&mut self, stamp: &str, data: &Bytes) {
        let mut rest = &data[..];
        while !rest.is_empty() {
            let end = rest.iter().position(|&b| b == b'\n');
            let line = &rest[..end.unwrap_or(rest.len())];
            if !self.open_line {
                self.output.extend_from_slice(stamp.as_bytes());
                self.output.push(b' ');
                self.tail.push_back(stamp_line(stamp));
                if self.tail.len() > KEPT_LINES {
                    self.tail.pop_front();
                }
            }
            self.output.extend_from_slice(line);
            if let Some(kept) = self.tail.back_mut() {
                let room = KEPT_BYTES.saturating_sub(kept.len());
                kept.extend_from_slice(&line[..line.len().min(room)]);
            }
            self.open_line = end.is_none();
            if end.is_some() {
                self.output.push(b'\n');
            }
            rest = end.map_or(&[], |end| &rest[end + 1..]);
        }
    }

    /// Moves the output that is waiting to `out`, a number before each line.
    pub(super) fn print_output(&mut self, out: &mut Vec<u8>) {
        let data = std::mem::take(&mut self.output);
        for line in data.split_inclusive(|&b| b == b'\n') {
            if !std::mem::replace(&mut self.continues, false) {
                out.extend_from_slice(format!("#{} ", self.index).as_bytes());
                self.open_text.clear();
            }
            out.extend_from_slice(line);
            let room = KEPT_BYTES.saturating_sub(self.open_text.len());
            self.open_text.extend_from_slice(&line[..line.len().min(room)]);
        }
        if let Some(&last) = data.last() {
            self.continues = last != b'\n';
        }
    }

    /// Ends a line that has not ended, because another vertex is printed now; it is printed again later.
    pub(super) fn interrupt(&mut self, out: &mut Vec<u8>) {
        if self.end_line(out) {
            self.output.splice(0..0, self.open_text.drain(..));
        }
    }

    /// Ends a line that has not ended.
    pub(super) fn end_line(&mut self, out: &mut Vec<u8>) -> bool {
        let open = std::mem::replace(&mut self.continues, false);
        if open {
            out.push(b'\n');
        }
        open
    }
}

fn stamp_line(stamp: &str) -> Vec<u8> {
    let mut line = stamp.as_bytes().to_vec();
    line.push(b' ');
    line
}

/// Seconds with three decimals below 10, two below 100, else one.
fn stamp(nanos: Nanos) -> String {
    let seconds = nanos as f64 / 1e9;
    match seconds {
        s if s < 10.0 => format!("{s:.3}"),
        s if s < 100.0 => format!("{s:.2}"),
        s => format!("{s:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_lose_decimals_as_they_grow() {
        assert_eq!(stamp(123_456_789), "0.123");
        assert_eq!(stamp(12_345_678_900), "12.35");
        assert_eq!(stamp(123_456_789_000), "123.5");
    }
}
