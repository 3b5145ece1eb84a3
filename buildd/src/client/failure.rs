//! How a failure is shown: the place in the Dockerfile, then the message.

use std::fmt::Write as _;

use frontend::excerpt::excerpt;
use frontend::span::{LineColumn, Lines, SourceFile, Span};
use proto::errdefs::Source;
use proto::pb::{Position, Range};

use super::{Address, ClientError};
use crate::errdetails::{self, ErrorDetails};

/// The text for stderr, ended by a newline.
pub fn render(err: &ClientError) -> String {
    let mut text = String::new();
    if let ClientError::Build(status) | ClientError::Daemon(status) = err {
        let (title, rest) = ("failed to solve: ", err.to_string());
        // The path is what counts, not what it was wanted for.
        let message = match rest.strip_prefix(title) {
            Some(message) => format!("{title}{}", errdetails::without_checksum(message)),
            None => rest,
        };
        return render_details(&message, &errdetails::details(status));
    }
    let _ = writeln!(text, "ERROR: {err}");
    match err {
        ClientError::Connect { .. } => {
            text.push_str("hint: is a daemon running there? `rbuild daemon --addr ADDRESS` starts one\n");
        }
        // Without TLS where TLS is wanted, every server ends the connection in its own way.
        ClientError::Lost { address: Address::Tcp(_), .. } => {
            text.push_str("hint: a daemon that wants TLS is reached with `--tlscacert`\n");
        }
        _ => {}
    }
    text
}

/// The places, then the message; several errors in the order of their lines, each under its own message.
fn render_details(message: &str, details: &ErrorDetails) -> String {
    let (mut text, mut message) = (String::new(), message.to_owned());
    if details.messages.len() == details.sources.len() {
        let mut errors: Vec<(&Source, &String)> = details.sources.iter().zip(&details.messages).collect();
        errors.sort_by_key(|(source, _)| source.ranges.iter().map(|r| lines_of(r).start).min());
        for (source, says) in errors {
            let _ = writeln!(text, "error: {says}");
            text.push_str(&shown(source));
            // It was said: the end of the message is for those that were not.
            message = message.replacen(&format!("\nalso: {says}"), "", 1);
        }
    } else {
        text.extend(details.sources.iter().map(shown));
    }
    let _ = writeln!(text, "ERROR: {message}");
    text
}

/// The excerpt of a place.
fn shown(source: &Source) -> String {
    let Some(info) = &source.info else { return String::new() };
    let file = SourceFile::new(&info.filename, &info.data);
    let (lines, words) = errdetails::lines_and_words(source);
    let lines: Vec<Lines> = lines.into_iter().map(lines_of).collect();
    let spans: Vec<Span> = words.into_iter().map(|r| span(&file, r)).collect();
    excerpt(&file, &lines, &spans).unwrap_or_default()
}

fn number(n: i32) -> u32 {
    u32::try_from(n).unwrap_or(0)
}

fn lines_of(range: &Range) -> Lines {
    let line = |p: Option<Position>| number(p.unwrap_or_default().line);
    Lines::new(line(range.start), line(range.end))
}

fn span(file: &SourceFile, range: &Range) -> Span {
    let offset = |p: Option<Position>| {
        let Position { line, character } = p.unwrap_or_default();
        file.offset(LineColumn { line: number(line), column: number(character) + 1 })
    };
    Span::new(offset(range.start), offset(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(data: &str, from: i32, to: i32) -> String {
        with_words(data, from, to, &[])
    }

    /// `words` are line, first column and the column after the last, from 0.
    fn with_words(data: &str, from: i32, to: i32, words: &[(i32, i32, i32)]) -> String {
        let position = |line| Some(Position { line, character: 0 });
        let at = |line, character| Some(Position { line, character });
        let whole = Range { start: position(from), end: position(to) };
        let words =
            words.iter().map(|&(line, start, end)| Range { start: at(line, start), end: at(line, end) });
        let details = ErrorDetails {
            vertex: None,
            messages: Box::default(),
            sources: vec![proto::errdefs::Source {
                info: Some(proto::pb::SourceInfo {
                    filename: "Dockerfile".into(),
                    data: data.to_owned().into(),
                    ..Default::default()
                }),
                ranges: std::iter::once(whole).chain(words).collect(),
            }],
            ..ErrorDetails::default()
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
    fn words_have_carets() {
        insta::assert_snapshot!(with_words("FROM x\nRUN ä \\\n\tb c\n", 2, 3, &[(2, 4, 5), (3, 3, 9)]), @r#"
        Dockerfile:2
        --------------------
           1 |     FROM x
           2 | >>> RUN ä \
             |         ^
           3 | >>> 	b c
             |     	  ^
           4 |     
        --------------------
        ERROR: failed to solve: process "/bin/sh -c false" did not complete successfully: exit code: 1
        "#);
        let outside = [(0, 3, 9), (9, 0, 4), (2, 90, 95), (-3, 2, 1), (1, i32::MAX, i32::MAX)];
        assert_eq!(with_words("FROM x\nRUN y\n", 2, 2, &outside), rendered("FROM x\nRUN y\n", 2, 2));
    }

    #[test]
    fn several_errors_stand_by_themselves() {
        let at = |line, character| Some(Position { line, character });
        let source = |line, from, to| Source {
            info: Some(proto::pb::SourceInfo {
                filename: "Dockerfile".into(),
                data: "FROM x\nRUN --mout=a b\nCOPPY a b\n".into(),
                ..Default::default()
            }),
            ranges: vec![
                Range { start: at(line, 0), end: at(line, 0) },
                Range { start: at(line, from), end: at(line, to) },
            ],
        };
        let details = ErrorDetails {
            vertex: None,
            sources: vec![source(3, 0, 5), source(2, 4, 10)],
            messages: ["unknown COPPY (line 3)".into(), "no --mout (line 2)\nhint: mount".into()].into(),
            ..ErrorDetails::default()
        };
        let message =
            "failed to solve: unknown COPPY\nalso: no --mout (line 2)\nhint: mount\nalso: more (line 9)";
        insta::assert_snapshot!(render_details(message, &details), @r#"
        error: no --mout (line 2)
        hint: mount
        Dockerfile:2
        --------------------
           1 |     FROM x
           2 | >>> RUN --mout=a b
             |         ^^^^^^
           3 |     COPPY a b
           4 |     
        --------------------
        error: unknown COPPY (line 3)
        Dockerfile:3
        --------------------
           1 |     FROM x
           2 |     RUN --mout=a b
           3 | >>> COPPY a b
             |     ^^^^^
           4 |     
        --------------------
        ERROR: failed to solve: unknown COPPY
        also: more (line 9)
        "#);
    }

    #[test]
    fn ranges_outside_the_file_show_nothing() {
        assert!(rendered("FROM x", 0, 0).starts_with("ERROR"));
        assert!(rendered("FROM x", 7, 9).starts_with("ERROR"));
        assert!(rendered("FROM x", -1, -5).starts_with("ERROR"));
    }
}
