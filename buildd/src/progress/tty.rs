//! The live picture on a terminal: a line per step, the last log lines of what runs.

use std::time::Instant;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::bytes::progress;
use super::interval::Nanos;
use super::trace::Trace;
use super::vertex::Shown;
use crate::explanation::BECAUSE;

/// Log lines shown below a running step.
const LOG_LINES: usize = 6;

/// Assumed where the terminal does not tell.
const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// Terminals that know synchronised updates draw all between these two at once (no flicker); others ignore them.
/// Lines do not wrap meanwhile: of what a terminal thinks wider than we do, the end is lost, not the picture.
const BEGIN: &str = "\x1b[?2026h\x1b[?25l\x1b[?7l";
const END: &str = "\x1b[?7h\x1b[?25h\x1b[?2026l";

const BLUE: &str = "\x1b[34m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const FAINT: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// What is on the terminal.
#[derive(Debug)]
pub struct Screen {
    begun: Instant,
    /// The daemon's time when the first message came, to go on from.
    epoch: Option<Nanos>,
    /// Lines drawn last.
    drawn: Vec<String>,
    color: bool,
}

impl Default for Screen {
    fn default() -> Self {
        let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { begun: Instant::now(), epoch: None, drawn: Vec::new(), color }
    }
}

/// A line before it is fitted to the terminal.
struct Row {
    left: String,
    right: String,
    color: &'static str,
    /// Stays visible when there is no room for all.
    running: bool,
}

impl Screen {
    /// Draws the present state over the last.
    pub(super) fn draw(&mut self, trace: &Trace, out: &mut Vec<u8>) {
        let (width, height) = size();
        let rows = fit(self.rows(trace, true), usize::from(height).saturating_sub(2));
        self.paint(self.frame(trace, rows, width, ""), out);
    }

    /// Draws everything one last time.
    pub(super) fn finish(&mut self, trace: &Trace, out: &mut Vec<u8>) {
        let (width, _) = size();
        let (all, done) = trace.counts();
        let word = if all == done && all > 0 { "FINISHED" } else { "" };
        let rows = self.rows(trace, false);
        self.paint(self.frame(trace, rows, width, word), out);
        self.drawn.clear();
    }

    /// The present by the daemon's clock.
    fn now(&mut self, trace: &Trace) -> Nanos {
        let elapsed = self.begun.elapsed().as_nanos() as Nanos;
        match (self.epoch, trace.started) {
            (Some(epoch), _) => epoch + elapsed,
            (None, Some(started)) => {
                self.epoch = Some(started - elapsed);
                started
            }
            (None, None) => 0,
        }
    }

    fn rows(&mut self, trace: &Trace, live: bool) -> Vec<Row> {
        let now = self.now(trace);
        let mut rows = Vec::new();
        for shown in trace.order.iter().filter_map(|id| trace.vertices.get(id)).filter(|v| !v.hidden) {
            rows.push(step(shown, now));
            for part in &shown.parts {
                let end = part.completed.unwrap_or(now);
                let line = format!(" => => {}{}", part.id, progress(part.current, part.total));
                rows.push(Row {
                    left: line.trim_end_matches([':', ' ']).to_owned(),
                    right: match part.id.starts_with(BECAUSE) {
                        true => String::new(),
                        false => seconds(part.started.map_or(0, |start| end - start)),
                    },
                    color: if part.completed.is_some() { BLUE } else { "" },
                    running: part.completed.is_none() && !shown.completed(),
                });
            }
            for warning in &shown.warnings {
                rows.push(Row {
                    left: format!(" => WARN: {warning}"),
                    right: String::new(),
                    color: YELLOW,
                    running: false,
                });
            }
            if live && !shown.completed() {
                let skip = shown.tail.len().saturating_sub(LOG_LINES);
                rows.extend(shown.tail.iter().skip(skip).map(|line| log(line)));
            }
        }
        rows
    }

    fn frame(&self, trace: &Trace, rows: Vec<Row>, width: u16, word: &str) -> Vec<String> {
        let width = usize::from(width);
        let (all, done) = trace.counts();
        let elapsed = self.begun.elapsed().as_secs_f64();
        let head = format!("[+] Building {elapsed:.1}s ({done}/{all}) {word}");
        let mut lines = vec![cut(&head, width)];
        lines.extend(rows.into_iter().map(|row| {
            let text = align(&row.left, &row.right, width);
            if self.color && !row.color.is_empty() { format!("{}{text}{RESET}", row.color) } else { text }
        }));
        lines
    }

    /// Rewrites only the lines that changed.
    fn paint(&mut self, lines: Vec<String>, out: &mut Vec<u8>) {
        let mut text = BEGIN.to_owned();
        if !self.drawn.is_empty() {
            text.push_str(&format!("\x1b[{}A\r", self.drawn.len()));
        }
        for (at, line) in lines.iter().enumerate() {
            match self.drawn.get(at) {
                Some(old) if old == line => text.push_str("\x1b[1B\r"),
                _ => text.push_str(&format!("{line}\x1b[K\r\n")),
            }
        }
        if lines.len() < self.drawn.len() {
            text.push_str("\x1b[J");
        }
        text.push_str(END);
        self.drawn = lines;
        out.extend_from_slice(text.as_bytes());
    }
}

/// The columns and rows of the terminal.
pub(crate) fn size() -> (u16, u16) {
    match crossterm::terminal::size() {
        Ok((width, height)) if width > 0 && height > 0 => (width, height),
        _ => DEFAULT_SIZE,
    }
}

fn step(shown: &Shown, now: Nanos) -> Row {
    let (mark, color) = match shown {
        v if v.canceled() => ("CANCELED ", YELLOW),
        v if v.failed() => ("ERROR ", RED),
        v if v.cached => ("CACHED ", BLUE),
        v if v.completed() => ("", BLUE),
        _ => ("", ""),
    };
    Row {
        left: format!(" => {mark}{}", printable(shown.name.as_bytes())),
        right: seconds(shown.intervals.spent(now).as_nanos() as Nanos),
        color,
        running: !shown.completed(),
    }
}

fn log(line: &[u8]) -> Row {
    // The time in front is for the plain format.
    let text = line.iter().position(|&b| b == b' ').map_or(line, |at| &line[at + 1..]);
    // What a carriage return has overwritten is not shown.
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let text = text.rsplit(|&b| b == b'\r').next().unwrap_or(text);
    Row { left: format!(" => => # {}", printable(text)), right: String::new(), color: FAINT, running: true }
}

/// Text without control characters and escape sequences.
pub(crate) fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(ch) = chars.next() {
        match ch {
            '\x1b' => skip_escape(&mut chars),
            '\t' => clean.push(' '),
            ch if ch.is_control() => {}
            ch => clean.push(ch),
        }
    }
    clean
}

/// Skips the rest of an escape sequence (ECMA-48: CSI ends with a byte from `@` to `~`).
fn skip_escape(chars: &mut std::str::Chars<'_>) {
    if chars.next() == Some('[') {
        for ch in chars {
            if ('@'..='~').contains(&ch) {
                return;
            }
        }
    }
}

fn seconds(nanos: Nanos) -> String {
    let seconds = nanos.max(0) as f64 / 1e9;
    // What takes no time shall not look as if it were measured.
    format!("{:.1}s", if seconds < 0.05 { 0.0 } else { seconds })
}

/// As much of the text as fits into so many columns.
pub(crate) fn cut(text: &str, width: usize) -> String {
    let mut used = 0;
    let fits = |ch: &char| {
        used += ch.width().unwrap_or(0);
        used <= width
    };
    text.chars().take_while(fits).collect()
}

/// Left text cut to fit, right text at the right edge.
fn align(left: &str, right: &str, width: usize) -> String {
    if right.is_empty() {
        return cut(left, width);
    }
    let room = width.saturating_sub(right.len() + 1);
    let left = cut(left, room);
    let gap = room - left.width();
    format!("{left}{:gap$} {right}", "")
}

/// Keeps what runs and, with the room that is left, the newest of the rest.
fn fit(rows: Vec<Row>, limit: usize) -> Vec<Row> {
    let mut drop = rows.len().saturating_sub(limit);
    let mut kept: Vec<Row> = Vec::new();
    for row in rows {
        if drop > 0 && !row.running {
            drop -= 1;
        } else {
            kept.push(row);
        }
    }
    // Even what runs alone may be too much.
    let excess = kept.len().saturating_sub(limit);
    kept.drain(..excess);
    kept
}

#[cfg(test)]
mod tests {
    use proto::control::{StatusResponse, Vertex, VertexLog};

    use super::*;

    fn time(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn sample() -> Trace {
        let mut trace = Trace::new();
        let done = Vertex {
            digest: "a".into(),
            name: "[1/3] FROM x".into(),
            started: time(1),
            completed: time(3),
            ..Default::default()
        };
        let cached = Vertex {
            digest: "b".into(),
            name: "[2/3] RUN a".into(),
            cached: true,
            started: time(3),
            completed: time(3),
            ..Default::default()
        };
        let runs = Vertex {
            digest: "c".into(),
            name: "[3/3] RUN make".into(),
            started: time(3),
            ..Default::default()
        };
        let log = VertexLog {
            vertex: "c".into(),
            timestamp: time(4),
            stream: 1,
            msg: "one\n10%\r50%\x1b[31m red\x07\n".into(),
        };
        trace.update(StatusResponse {
            vertexes: vec![done, cached, runs],
            logs: vec![log],
            ..Default::default()
        });
        trace
    }

    /// The texts, with the running step's time left out.
    fn texts(rows: &[Row]) -> Vec<String> {
        rows.iter().map(|r| format!("{}|{}", r.left, if r.running { "" } else { &r.right })).collect()
    }

    #[test]
    fn steps_and_logs() {
        let mut screen = Screen::default();
        let rows = screen.rows(&sample(), true);
        assert_eq!(
            texts(&rows),
            [
                " => [1/3] FROM x|2.0s",
                " => CACHED [2/3] RUN a|0.0s",
                " => [3/3] RUN make|",
                " => => # one|",
                " => => # 50% red|"
            ]
        );
        assert_eq!(screen.rows(&sample(), false).len(), 3);
    }

    #[test]
    fn what_runs_stays_visible() {
        let mut screen = Screen::default();
        let rows = fit(screen.rows(&sample(), true), 4);
        assert_eq!(texts(&rows)[0], " => CACHED [2/3] RUN a|0.0s");
        let rows = fit(screen.rows(&sample(), true), 2);
        assert_eq!(texts(&rows), [" => => # one|", " => => # 50% red|"]);
    }

    #[test]
    fn lines_fit_the_width() {
        assert_eq!(align(" => grün", "1.0s", 14), " => grün  1.0s");
        assert_eq!(align(" => a long name", "12.3s", 14), " => a lo 12.3s");
        assert_eq!(align("x", "1.0s", 2), " 1.0s");
        // Two columns each; the third does not fit.
        assert_eq!(align("漢字漢", "1.0s", 10), "漢字  1.0s");
        // An accent of its own takes no column.
        assert_eq!(align("a\u{301}b", "1.0s", 8), "a\u{301}b  1.0s");
        assert_eq!(cut("漢字", 3), "漢");
    }

    #[test]
    fn unchanged_lines_are_not_written_again() {
        let mut screen = Screen::default();
        let mut out = Vec::new();
        screen.paint(vec!["head 1".into(), "same".into(), "gone".into()], &mut out);
        out.clear();
        screen.paint(vec!["head 2".into(), "same".into()], &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\x1b[3A"), "{text:?}");
        assert!(text.contains("head 2") && !text.contains("same") && text.contains("\x1b[J"), "{text:?}");
    }
}
