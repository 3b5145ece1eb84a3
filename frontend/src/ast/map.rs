//! From offsets in a joined line back to the file.

use crate::span::Span;

/// Says where each piece of a logical line comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceMap {
    /// The offset in the file of the joined line's start.
    start: usize,
    /// Offset in the joined line and in the file, for each further physical line that adds to it; both ascending.
    pieces: Vec<(usize, usize)>,
}

impl SourceMap {
    /// A map for text that stands in the file unbroken from `offset`.
    pub fn unbroken(offset: usize) -> Self {
        Self { start: offset, pieces: Vec::new() }
    }

    /// Says that the joined line goes on, from `joined`, with the file's bytes from `source`.
    pub fn push(&mut self, joined: usize, source: usize) {
        self.pieces.push((joined, source));
    }

    /// The file's offset of an offset in the joined line.
    pub fn offset(&self, joined: usize) -> usize {
        let after = self.pieces.partition_point(|&(start, _)| start <= joined);
        let piece = after.checked_sub(1).and_then(|at| self.pieces.get(at));
        let &(start, source) = piece.unwrap_or(&(0, self.start));
        source + joined - start
    }

    /// The file's span of a range of the joined line; it may reach over continuations.
    pub fn span(&self, start: usize, end: usize) -> Span {
        let last = end.max(start + 1) - 1;
        Span::new(self.offset(start), self.offset(last) + usize::from(end > start))
    }

    /// The map of the part of the line that starts at `joined`.
    pub fn tail(&self, joined: usize) -> Self {
        let mut tail = Self::unbroken(self.offset(joined));
        let later = self.pieces.iter().filter(|&&(start, _)| start > joined);
        tail.pieces.extend(later.map(|&(start, source)| (start - joined, source)));
        tail
    }
}
