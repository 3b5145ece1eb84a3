//! BuildKit's plain line format.
//!
//! Vertices run at the same time, but lines of one are kept together: the printer stays with a vertex and moves on when it
//! is done, or when others have waited long enough. `#N ...` marks an interruption, a blank line a change.

use std::time::{Duration, Instant};

use super::bytes::progress;
use super::interval::Nanos;
use super::trace::Trace;
use super::vertex::{Part, Shown};
use crate::explanation::BECAUSE;

/// How long one vertex keeps the display while others have something to say.
const ANTI_FLICKER: Duration = Duration::from_secs(5);

/// How long a vertex waits at most.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// A transfer is printed again after this many nanoseconds, or this share of its total.
const MIN_TIME_STEP: Nanos = 5_000_000_000;
const MIN_PROGRESS_STEP: f64 = 0.05;

/// Bytes of output that may wait for their vertex's turn.
const MAX_WAITING: usize = 4 << 20;

/// Prints traces; remembers which vertex is on display.
#[derive(Debug, Default)]
pub(super) struct Printer {
    current: Option<String>,
    begun: bool,
}

struct Share {
    id: String,
    waited: Duration,
    speed: f64,
    overdue: bool,
}

impl Printer {
    /// Appends to `out` what is new in the trace and may be shown now.
    pub(super) fn print(&mut self, trace: &mut Trace, out: &mut Vec<u8>) {
        let (completed, rest) = split(trace);
        let current = self.current.clone();
        let was_current = |id: &String| Some(id) == current.as_ref();
        let current_done = completed.iter().any(was_current);
        // The one on display first, then by the time of their ends.
        for id in completed
            .iter()
            .filter(|&id| was_current(id))
            .chain(completed.iter().filter(|&id| !was_current(id)))
        {
            self.vertex(trace, id, out);
        }
        for id in &rest {
            if trace.vertices.get(id).is_some_and(|v| v.output.len() > MAX_WAITING) {
                self.vertex(trace, id, out);
            }
        }
        if rest.is_empty() {
            self.resume(trace, current.as_deref(), out);
            return;
        }
        if let Some(id) = rest.iter().find(|&id| was_current(id)) {
            self.vertex(trace, id, out);
        }
        self.choose(trace, current.filter(|_| !current_done), rest, out);
    }

    /// With nothing new of those that run, shows one of them unless one is on display.
    fn resume(&mut self, trace: &mut Trace, current: Option<&str>, out: &mut Vec<u8>) {
        let runs = |v: &Shown| v.started() && !v.completed() && !v.hidden;
        if current.and_then(|id| trace.vertices.get(id)).is_some_and(runs) {
            return;
        }
        let open = trace.order.iter().find(|&id| trace.vertices.get(id).is_some_and(runs)).cloned();
        if let Some(id) = open {
            self.vertex(trace, &id, out);
        }
    }

    /// Decides which of those that run is on display from now on.
    fn choose(
        &mut self,
        trace: &mut Trace,
        current: Option<String>,
        mut rest: Vec<String>,
        out: &mut Vec<u8>,
    ) {
        if let Some(current) = current.as_ref().filter(|&id| !rest.contains(id)) {
            rest.push(current.clone());
        }
        let now = Instant::now();
        let shares: Vec<Share> = rest
            .into_iter()
            .filter_map(|id| {
                let shown = trace.vertices.get(&id)?;
                let waited = now.saturating_duration_since(shown.waiting_since?);
                let speed = shown.updates as f64 / waited.as_secs_f64().max(1e-9);
                let overdue = waited > MAX_DELAY && current.as_ref() != Some(&id);
                Some(Share { id, waited, speed, overdue })
            })
            .collect();
        let rank = |s: &&Share| (s.overdue, s.speed);
        let Some(busiest) =
            shares.iter().max_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal))
        else {
            return;
        };
        let Some(current) = current else {
            self.vertex(trace, &busiest.id, out);
            return;
        };
        if busiest.overdue {
            self.vertex(trace, &busiest.id, out);
            return;
        }
        let total: f64 = shares.iter().map(|s| s.speed).sum();
        let Some(mine) = shares.iter().find(|s| s.id == current) else { return };
        let others = 1.0 - mine.speed / total;
        if ANTI_FLICKER.as_secs_f64() / others < mine.waited.as_secs_f64() {
            self.vertex(trace, &busiest.id, out);
        }
    }

    fn vertex(&mut self, trace: &mut Trace, id: &str, out: &mut Vec<u8>) {
        let index = trace.number(id);
        if self.current.as_deref() != Some(id) {
            if let Some(old) = self.current.take().and_then(|old| trace.vertices.get_mut(&old)) {
                old.interrupt(out);
                old.updates = 0;
                line(out, old.index, "...");
            }
            if self.begun {
                out.push(b'\n');
            }
            self.begun = true;
        }
        let changed = self.current.as_deref() != Some(id);
        let Some(shown) = trace.vertices.get_mut(id) else { return };
        if changed {
            line(out, index, &shown.name);
        }
        let open_part = parts(shown, out);
        for warning in shown.warnings.iter().skip(shown.warnings_printed) {
            line(out, index, &format!("WARN: {warning}"));
        }
        shown.warnings_printed = shown.warnings.len();
        shown.print_output(out);
        self.current = Some(id.to_owned());
        if shown.completed() && !open_part {
            self.current = None;
            shown.updates = 0;
            shown.end_line(out);
            line(out, index, &ending(shown));
        }
        trace.updates.remove(id);
    }
}

/// Which changed vertices are done, by the time of their ends, and which run, by the time of their starts.
fn split(trace: &Trace) -> (Vec<String>, Vec<String>) {
    let (mut completed, mut rest) = (Vec::new(), Vec::new());
    for id in trace.order.iter().filter(|&id| trace.updates.contains(id)) {
        match trace.vertices.get(id) {
            Some(shown) if shown.hidden => {}
            Some(shown) if shown.completed() => {
                completed.push((shown.intervals.last().and_then(|(_, stop)| stop), id.clone()));
            }
            _ => rest.push(id.clone()),
        }
    }
    // Stable: those that ended together stay in the order of their starts.
    completed.sort_by_key(|(stop, _)| *stop);
    (completed.into_iter().map(|(_, id)| id).collect(), rest)
}

/// Prints transfers that moved enough; `true` while one is unfinished.
fn parts(shown: &mut Shown, out: &mut Vec<u8>) -> bool {
    let mut open = false;
    let index = shown.index;
    for part in shown.parts.iter_mut().filter(|part| part.changed) {
        part.changed = false;
        if !worth_printing(part) {
            continue;
        }
        part.printed = Some((part.current, part.timestamp));
        open |= part.completed.is_none();
        line(out, index, &part_line(part));
    }
    open
}

fn worth_printing(part: &Part) -> bool {
    let Some((current, at)) = part.printed.filter(|_| part.completed.is_none()) else { return true };
    let step = if part.total > 0 { (part.current - current) as f64 / part.total as f64 } else { 0.0 };
    step >= MIN_PROGRESS_STEP || part.timestamp - at >= MIN_TIME_STEP
}

fn part_line(part: &Part) -> String {
    if part.id.starts_with(BECAUSE) {
        return part.id.clone();
    }
    let mut text = format!("{}{}", part.id, progress(part.current, part.total));
    if let Some(started) = part.started {
        let seconds = (part.completed.unwrap_or(part.timestamp) - started) as f64 / 1e9;
        if seconds > 0.01 {
            text.push_str(&format!(" {seconds:.1}s"));
        }
    }
    if part.completed.is_some() {
        text.push_str(" done");
    }
    text
}

fn ending(shown: &Shown) -> String {
    if shown.canceled() {
        return "CANCELED".to_owned();
    }
    if shown.failed() {
        return format!("ERROR: {}", shown.error);
    }
    if shown.cached {
        return "CACHED".to_owned();
    }
    // Everything has ended, so the present does not count.
    format!("DONE {:.1}s", shown.intervals.spent(0).as_secs_f64())
}

fn line(out: &mut Vec<u8>, index: usize, text: &str) {
    out.extend_from_slice(format!("#{index} {text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};

    use super::*;

    fn at(ms: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp {
            seconds: 1000 + ms.div_euclid(1000),
            nanos: (ms.rem_euclid(1000) * 1_000_000) as i32,
        })
    }

    fn vertex(digest: &str, name: &str, started: i64, completed: Option<i64>) -> Vertex {
        Vertex {
            digest: digest.into(),
            name: name.into(),
            started: at(started),
            completed: completed.and_then(at),
            ..Vertex::default()
        }
    }

    fn vertices(vertexes: Vec<Vertex>) -> StatusResponse {
        StatusResponse { vertexes, ..StatusResponse::default() }
    }

    fn log(digest: &str, ms: i64, text: &str) -> StatusResponse {
        let log =
            VertexLog { vertex: digest.into(), timestamp: at(ms), stream: 1, msg: text.to_owned().into() };
        StatusResponse { logs: vec![log], ..StatusResponse::default() }
    }

    fn status(id: &str, current: i64, total: i64, now: i64, completed: Option<i64>) -> StatusResponse {
        let status = VertexStatus {
            id: id.into(),
            vertex: "a".into(),
            current,
            total,
            timestamp: at(now),
            started: at(0),
            completed: completed.and_then(at),
            ..VertexStatus::default()
        };
        StatusResponse { statuses: vec![status], ..StatusResponse::default() }
    }

    fn printed(messages: Vec<StatusResponse>) -> String {
        let (mut trace, mut printer, mut out) = (Trace::new(), Printer::default(), Vec::new());
        for message in messages {
            trace.update(message);
            printer.print(&mut trace, &mut out);
        }
        printer.print(&mut trace, &mut out);
        String::from_utf8(out).unwrap() + &trace.error_logs()
    }

    #[test]
    fn one_after_the_other() {
        let cached = Vertex { cached: true, ..vertex("b", "[2/4] RUN make", 10, Some(10)) };
        let text = printed(vec![
            vertices(vec![vertex("a", "[internal] load build definition from Dockerfile", 0, None)]),
            status("transferring dockerfile: ", 0, 0, 1, None),
            status("transferring dockerfile: ", 120, 0, 20, Some(20)),
            vertices(vec![vertex("a", "[internal] load build definition from Dockerfile", 0, Some(123))]),
            vertices(vec![cached]),
            vertices(vec![vertex("c", "[3/4] RUN echo", 200, None)]),
            log("c", 323, "hello\nwor"),
            log("c", 12_000, "ld\n"),
            log("c", 212_000, "late\n"),
            vertices(vec![vertex("c", "[3/4] RUN echo", 200, Some(213_000))]),
        ]);
        insta::assert_snapshot!(text, @"
        #1 [internal] load build definition from Dockerfile
        #1 transferring dockerfile: 
        #1 transferring dockerfile:  120B 0.0s done
        #1 DONE 0.1s

        #2 [2/4] RUN make
        #2 CACHED

        #3 [3/4] RUN echo
        #3 0.123 hello
        #3 0.123 world
        #3 211.8 late
        #3 DONE 212.8s
        ");
    }

    #[test]
    fn interrupted_lines_are_printed_again() {
        let text = printed(vec![
            vertices(vec![vertex("a", "[a 1/1] RUN a", 0, None)]),
            log("a", 1000, "half"),
            vertices(vec![vertex("b", "[b 1/1] RUN b", 0, None), vertex("b", "[b 1/1] RUN b", 0, Some(500))]),
            log("a", 1500, " whole\n"),
            vertices(vec![vertex("a", "[a 1/1] RUN a", 0, Some(2000))]),
        ]);
        insta::assert_snapshot!(text, @"
        #1 [a 1/1] RUN a
        #1 1.000 half
        #1 ...

        #2 [b 1/1] RUN b
        #2 DONE 0.5s

        #1 [a 1/1] RUN a
        #1 1.000 half whole
        #1 DONE 2.0s
        ");
    }

    #[test]
    fn failures_show_the_last_lines_again() {
        let failed = Vertex { error: "exit code: 1".into(), ..vertex("a", "[2/2] RUN false", 0, Some(100)) };
        let canceled =
            Vertex { error: "x: context canceled".into(), ..vertex("b", "[b 2/2] RUN sleep", 0, Some(100)) };
        let lines: String = (0..12).map(|i| format!("line {i}\n")).collect();
        let text = printed(vec![
            vertices(vec![vertex("a", "[2/2] RUN false", 0, None)]),
            log("a", 50, &lines[..lines.len() - 1]),
            vertices(vec![failed, canceled]),
        ]);
        assert!(text.contains("#1 0.050 line 11\n#1 ERROR: exit code: 1\n"), "{text}");
        assert!(text.contains("#2 CANCELED\n"), "{text}");
        assert!(text.contains("------\n > [2/2] RUN false:\n0.050 line 2\n"), "{text}");
        assert_eq!(text.matches("------").count(), 2);
    }

    #[test]
    fn transfers_are_printed_when_they_moved() {
        let text = printed(vec![
            vertices(vec![vertex("a", "[1/2] FROM x", 0, None)]),
            status("sha256:ab", 0, 1000, 0, None),
            status("sha256:ab", 10, 1000, 100, None),
            status("sha256:ab", 500, 1000, 200, None),
            status("sha256:ab", 1000, 1000, 300, Some(300)),
            vertices(vec![vertex("a", "[1/2] FROM x", 0, Some(400))]),
        ]);
        insta::assert_snapshot!(text, @"
        #1 [1/2] FROM x
        #1 sha256:ab 0B / 1.00kB
        #1 sha256:ab 500B / 1.00kB 0.2s
        #1 sha256:ab 1.00kB / 1.00kB 0.3s done
        #1 DONE 0.4s
        ");
    }

    #[test]
    fn warnings_and_groups() {
        let group =
            |weak| Some(proto::pb::ProgressGroup { id: "g".into(), name: "[copy] group".into(), weak });
        let member = |digest, completed, weak| Vertex {
            progress_group: group(weak),
            ..vertex(digest, "member", 0, completed)
        };
        let warning = VertexWarning {
            vertex: "m".into(),
            short: "Rule: text (line 3)".into(),
            ..VertexWarning::default()
        };
        let text = printed(vec![
            vertices(vec![member("w", None, true)]),
            vertices(vec![member("m", None, false)]),
            StatusResponse { warnings: vec![warning], ..StatusResponse::default() },
            vertices(vec![member("m", Some(10), false), member("w", Some(1000), true)]),
        ]);
        insta::assert_snapshot!(text, @"
        #1 [copy] group
        #1 WARN: Rule: text (line 3)
        #1 DONE 1.0s
        ");
    }

    #[test]
    fn much_output_is_not_kept() {
        let mut trace = Trace::new();
        let mut printer = Printer::default();
        trace.update(vertices(vec![vertex("a", "[a] RUN yes", 0, None)]));
        let block = "0123456789abcde\n".repeat(4096);
        let mut written = 0;
        for _ in 0..160 {
            trace.update(log("a", 1, &block));
            let mut out = Vec::new();
            printer.print(&mut trace, &mut out);
            written += out.len();
        }
        assert_eq!(written, "#1 [a] RUN yes\n".len() + 160 * 4096 * "#1 0.001 0123456789abcde\n".len());
        assert!(trace.vertices["a"].output.capacity() < 1 << 20);
    }
}
