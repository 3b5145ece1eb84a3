//! Places in a Dockerfile: byte spans, line ranges, and the file that they point into.

use std::ops::RangeInclusive;

/// A half-open range of byte offsets into [`SourceFile::text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Span {
    /// The offset of the first byte.
    pub start: usize,
    /// The offset after the last byte.
    pub end: usize,
}

impl Span {
    /// Makes a span; an end before the start is taken for an empty span.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }
}

/// The lines of an instruction, 1-based and inclusive, as BuildKit reports them.
///
/// Line 0 stands for "no line", which BuildKit uses for errors before the first line was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Lines {
    /// The first line.
    pub start: u32,
    /// The last line, never before `start`.
    pub end: u32,
}

impl Lines {
    /// Makes a range; an end before the start is taken for a single line.
    pub fn new(start: u32, end: u32) -> Self {
        Self { start, end: end.max(start) }
    }

    /// A range of one line.
    pub fn single(line: u32) -> Self {
        Self::new(line, line)
    }

    /// The lines, first to last.
    pub fn iter(self) -> RangeInclusive<u32> {
        self.start..=self.end
    }
}

/// A place as people count: both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineColumn {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

/// A Dockerfile's name and text, with an index of its lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceFile {
    name: String,
    text: String,
    line_starts: Vec<usize>,
}

impl SourceFile {
    /// Takes a file's bytes; each byte that is not UTF-8 becomes U+FFFD, as in BuildKit's JSON.
    ///
    /// `name` is what diagnostics call the file, usually `Dockerfile`.
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let text = decode(bytes);
        let line_starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(at, _)| at + 1))
            .collect();
        Self { name: name.to_owned(), text, line_starts }
    }

    /// The name given by the caller.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The decoded text, byte-order mark and carriage returns included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The number of lines; a final line feed does not open another one.
    pub fn line_count(&self) -> u32 {
        let open = usize::from(self.line_starts.last().is_some_and(|&start| start < self.text.len()));
        u32::try_from(self.line_starts.len().saturating_sub(1) + open).unwrap_or(u32::MAX)
    }

    /// A line's text without its line end; empty when there is no such line.
    pub fn line(&self, line: u32) -> &str {
        let span = self.line_span(line);
        self.text.get(span.start..span.end).unwrap_or("").trim_end_matches(['\r', '\n'])
    }

    /// The span of a line, line end included; empty when there is no such line.
    pub fn line_span(&self, line: u32) -> Span {
        let index = (line as usize).wrapping_sub(1);
        let Some(&start) = self.line_starts.get(index) else {
            return Span::new(self.text.len(), self.text.len());
        };
        Span::new(start, self.line_starts.get(index + 1).copied().unwrap_or(self.text.len()))
    }

    /// The byte offset of a line and column; columns past the end of the line mean its end.
    pub fn offset(&self, place: LineColumn) -> usize {
        let start = self.line_span(place.line).start;
        let before = self.line(place.line).chars().take((place.column as usize).saturating_sub(1));
        start + before.map(char::len_utf8).sum::<usize>()
    }

    /// The line and column of a byte offset; offsets past the end mean the end.
    pub fn locate(&self, offset: usize) -> LineColumn {
        let offset = offset.min(self.text.len());
        let index = self.line_starts.partition_point(|&start| start <= offset).saturating_sub(1);
        let before = self.text.get(self.line_starts[index]..offset).unwrap_or("");
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        LineColumn { line: count(index + 1), column: count(before.chars().count() + 1) }
    }
}

/// Decodes like Go ranging over a string: one U+FFFD for each byte that does not belong.
fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}
