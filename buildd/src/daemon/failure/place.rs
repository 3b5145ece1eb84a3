//! Places in files, as they travel with an error.

use frontend::diagnostic::Diagnostic;
use frontend::span::{Lines, SourceFile, Span};
use solver::graph::{SourceInfo, SourceLocation, SourceRange};
use solver::{Graph, VertexId};

/// A larger file is sent only as far as excerpts show it: details of an error travel in HTTP trailers, which have a limit,
/// and each error of a file brings its own.
const LARGE: usize = 16 << 10;

/// Lines around those of an error that excerpts may show.
const AROUND: u32 = 8;

/// Where a diagnostic's lines and words are.
pub(super) fn of_diagnostic(
    info: &SourceInfo,
    file: &SourceFile,
    diagnostic: &Diagnostic,
) -> Option<proto::errdefs::Source> {
    let named = diagnostic.lines.map(|l| (l.start, l.end)).filter(|(start, _)| *start > 0);
    let (start_line, end_line) = named.or_else(|| diagnostic.line(file).map(|l| (l, l)))?;
    let whole = SourceRange { start_line, end_line, ..SourceRange::default() };
    let words = diagnostic.spans.iter().map(|span| words(file, *span));
    Some(source(info, &std::iter::once(whole).chain(words).collect::<Vec<_>>()))
}

/// Where a vertex comes from, with the words that `find` finds in its lines.
pub(super) fn of_vertex(
    graph: &Graph,
    id: VertexId,
    find: impl Fn(&SourceFile, Lines) -> Option<Span>,
) -> Vec<proto::errdefs::Source> {
    let at = |l: &SourceLocation| {
        let info = graph.sources.get(l.source as usize)?;
        let mut ranges = l.ranges.clone();
        let file = SourceFile::new(&info.filename, &info.data);
        let first = *ranges.first()?;
        let lines = Lines::new(first.start_line, first.end_line.max(first.start_line));
        // Beside columns of the client's nobody could tell whose these are.
        let found = find(&file, lines).filter(|_| first.start_character == 0 && first.end_character == 0);
        ranges.extend(found.map(|span| words(&file, span)));
        Some(source(info, &ranges))
    };
    // BuildKit's clients show the last one first.
    graph.vertex(id).meta.locations.iter().rev().filter_map(at).collect()
}

/// A line without the blanks around its text.
pub(super) fn of_line(file: &SourceFile, line: u32) -> Option<Span> {
    let (start, text) = (file.line_span(line).start, file.line(line));
    let indent = text.len() - text.trim_start().len();
    (indent < text.len()).then(|| Span::new(start + indent, start + text.trim_end().len()))
}

/// The range of a span, with its columns.
fn words(file: &SourceFile, span: Span) -> SourceRange {
    let (start, end) = (file.locate(span.start), file.locate(span.end));
    SourceRange {
        start_line: start.line,
        start_character: start.column - 1,
        end_line: end.line,
        end_character: end.column - 1,
    }
}

/// A file's bytes; of a large one, only the lines near the ranges, the others empty.
fn near(data: &[u8], ranges: &[SourceRange]) -> Vec<u8> {
    if data.len() <= LARGE {
        return data.to_vec();
    }
    let is_near = |line: u32| {
        ranges.iter().any(|r| {
            (r.start_line.saturating_sub(AROUND)..=r.end_line.saturating_add(AROUND)).contains(&line)
        })
    };
    let lines = (1..).zip(data.split(|b| *b == b'\n'));
    let lines: Vec<&[u8]> = lines.map(|(number, line)| if is_near(number) { line } else { &[] }).collect();
    lines.join(&b'\n')
}

fn source(info: &SourceInfo, ranges: &[SourceRange]) -> proto::errdefs::Source {
    let position = |line: u32, character: u32| {
        Some(proto::pb::Position { line: line as i32, character: character as i32 })
    };
    proto::errdefs::Source {
        info: Some(proto::pb::SourceInfo {
            filename: info.filename.clone(),
            data: near(&info.data, ranges).into(),
            definition: crate::llb::loaded_by(info),
            language: info.language.clone(),
        }),
        ranges: ranges
            .iter()
            .map(|r| proto::pb::Range {
                start: position(r.start_line, r.start_character),
                end: position(r.end_line, r.end_character),
            })
            .collect(),
    }
}
