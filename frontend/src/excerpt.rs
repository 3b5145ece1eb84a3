//! Excerpts of a Dockerfile with lines marked, in the form that BuildKit prints.
//!
//! ```text
//! Dockerfile:2
//! --------------------
//!    1 |     FROM scratch
//!    2 | >>> COPPY a b
//!      |     ^^^^^
//! --------------------
//! ```
//!
//! The lines of carets are ours; everything else is as in BuildKit, byte by byte.

use std::fmt::Write as _;

use crate::span::{Lines, SourceFile, Span};

const RULE: &str = "--------------------\n";

/// The excerpt around some lines; nothing when none of them is in the file.
///
/// Spans get a line of carets under the lines that they are on, as long as those are shown.
pub fn excerpt(source: &SourceFile, marked: &[Lines], spans: &[Span]) -> Option<String> {
    let start = marked.iter().map(|lines| lines.start).min()?;
    let total = last_line(source);
    if start < 1 || start > total {
        return None;
    }
    let end = marked.iter().map(|lines| lines.end).max()?.min(total);
    let (from, to) = padded(start, end, total);
    let mut text = format!("{}:{start}\n{RULE}", source.name());
    for line in from..=to {
        let sign =
            if marked.iter().any(|lines| (lines.start..=lines.end).contains(&line)) { ">>>" } else { "   " };
        let raw = &source.text()[span_of(source, line)];
        writeln!(text, " {line:3} | {sign} {raw}").expect("a string takes it");
        if let Some(carets) = carets(source, line, spans) {
            let width = line.to_string().len().max(3);
            writeln!(text, " {:width$} |     {carets}", "").expect("a string takes it");
        }
    }
    text.push_str(RULE);
    Some(text)
}

/// BuildKit counts the empty text after a final line feed as a line, and shows it.
fn last_line(source: &SourceFile) -> u32 {
    source.line_count() + u32::from(source.text().ends_with('\n') || source.text().is_empty())
}

/// A line without its line feed; a carriage return stays.
fn span_of(source: &SourceFile, line: u32) -> std::ops::Range<usize> {
    let span = source.line_span(line);
    let text = &source.text()[span.start..span.end];
    span.start..span.end - usize::from(text.ends_with('\n'))
}

/// Adds lines around: up to two before and after a single line, one around several.
fn padded(mut start: u32, mut end: u32, total: u32) -> (u32, u32) {
    let budget = if start == end { 4 } else { 2 };
    let mut spent = 0;
    while spent < budget {
        if start > 1 {
            start -= 1;
            spent += 1;
        }
        if end != total {
            end += 1;
            spent += 1;
        }
        spent += 1;
    }
    (start, end)
}

/// Carets under the parts of a line that spans cover. Tabs stay tabs, so that columns fit.
fn carets(source: &SourceFile, line: u32, spans: &[Span]) -> Option<String> {
    let range = span_of(source, line);
    let covered = |at: usize| spans.iter().any(|span| span.start <= at && at < span.end);
    let text = source.text()[range.clone()].trim_end();
    let indent = text.len() - text.trim_start().len();
    let mut carets = String::new();
    for (at, ch) in text.char_indices() {
        carets.push(match ch {
            _ if at >= indent && covered(range.start + at) => '^',
            '\t' => '\t',
            _ => ' ',
        });
    }
    let shown = carets.trim_end();
    (!shown.is_empty()).then(|| shown.to_owned())
}
