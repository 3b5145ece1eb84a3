//! How a failure is shown: the place in the Dockerfile, then the message.

use std::fmt::Write as _;

use proto::pb::Range;

use super::ClientError;
use crate::errdetails::{self, ErrorDetails};

/// Lines around the ones that failed: this many in all, fewer at the ends of the file.
const PADDING_ONE_LINE: usize = 4;
const PADDING_SEVERAL: usize = 2;

/// The text for stderr, ended by a newline.
pub fn render(err: &ClientError) -> String {
    let mut text = String::new();
    if let ClientError::Build(status) | ClientError::Daemon(status) = err {
        excerpts(&mut text, &errdetails::details(status));
    }
    let _ = writeln!(text, "ERROR: {err}");
    if let ClientError::Connect { .. } = err {
        text.push_str("hint: is a daemon running there? `rbuild daemon --addr ADDRESS` starts one\n");
    }
    text
}

fn excerpts(text: &mut String, details: &ErrorDetails) {
    for source in &details.sources {
        if let Some(info) = &source.info {
            excerpt(text, &info.filename, &String::from_utf8_lossy(&info.data), &source.ranges);
        }
    }
}

fn excerpt(text: &mut String, filename: &str, data: &str, ranges: &[Range]) {
    let lines: Vec<&str> = data.split('\n').collect();
    let spans: Vec<(usize, usize)> = ranges.iter().map(span).collect();
    let Some(first) = spans.iter().map(|s| s.0).min() else { return };
    let last = spans.iter().map(|s| s.1).max().unwrap_or(first).min(lines.len());
    if first < 1 || first > lines.len() {
        return;
    }
    let (start, end) = padded(first, last.max(first), lines.len());
    let _ = writeln!(text, "{filename}:{first}\n--------------------");
    for number in start..=end {
        let mark = if spans.iter().any(|&(a, b)| (a..=b).contains(&number)) { ">>>" } else { "   " };
        let _ = writeln!(text, " {number:3} | {mark} {}", lines[number - 1].trim_end_matches('\r'));
    }
    text.push_str("--------------------\n");
}

fn span(range: &Range) -> (usize, usize) {
    let line = |p: Option<proto::pb::Position>| usize::try_from(p.unwrap_or_default().line).unwrap_or(0);
    let start = line(range.start);
    (start, line(range.end).max(start))
}

/// Widens a range by turns at both ends, as BuildKit does: each turn counts once more than the lines it adds.
fn padded(mut start: usize, mut end: usize, count: usize) -> (usize, usize) {
    let padding = if start == end { PADDING_ONE_LINE } else { PADDING_SEVERAL };
    let mut added = 0;
    while added < padding {
        if start > 1 {
            start -= 1;
            added += 1;
        }
        if end != count {
            end += 1;
            added += 1;
        }
        added += 1;
    }
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(data: &str, from: i32, to: i32) -> String {
        let position = |line| Some(proto::pb::Position { line, character: 0 });
        let details = ErrorDetails {
            vertex: None,
            sources: vec![proto::errdefs::Source {
                info: Some(proto::pb::SourceInfo {
                    filename: "Dockerfile".into(),
                    data: data.to_owned().into(),
                    ..Default::default()
                }),
                ranges: vec![Range { start: position(from), end: position(to) }],
            }],
        };
        let status = errdetails::status(
            tonic::Code::Unknown,
            "process \"/bin/sh -c false\" did not complete successfully: exit code: 1",
            &details,
        );
        render(&ClientError::Build(Box::new(status)))
    }

    #[test]
    fn one_line_is_marked() {
        insta::assert_snapshot!(rendered("FROM x\nRUN a\nRUN b\nRUN false\nRUN c\nRUN d\nRUN e\n", 4, 4), @r#"
        Dockerfile:4
        --------------------
           2 |     RUN a
           3 |     RUN b
           4 | >>> RUN false
           5 |     RUN c
           6 |     RUN d
        --------------------
        ERROR: failed to solve: process "/bin/sh -c false" did not complete successfully: exit code: 1
        "#);
    }

    #[test]
    fn several_lines_at_the_end_of_the_file() {
        insta::assert_snapshot!(rendered("FROM x\nRUN a \\\n false", 2, 3), @r#"
        Dockerfile:2
        --------------------
           1 |     FROM x
           2 | >>> RUN a \
           3 | >>>  false
        --------------------
        ERROR: failed to solve: process "/bin/sh -c false" did not complete successfully: exit code: 1
        "#);
    }

    #[test]
    fn ranges_outside_the_file_show_nothing() {
        assert!(rendered("FROM x", 0, 0).starts_with("ERROR"));
        assert!(rendered("FROM x", 7, 9).starts_with("ERROR"));
        assert!(rendered("FROM x", -1, -5).starts_with("ERROR"));
    }
}
