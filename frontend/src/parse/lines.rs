//! Physical lines to logical lines: comments, continuations, here-document bodies.

use crate::ast::SourceMap;
use crate::parse::directive::DirectiveReader;
use crate::span::{SourceFile, Span};

/// The longest line in bytes, without its line feed: BuildKit reads lines through a buffer of 64 KiB.
pub(super) const MAX_LINE: usize = 65_535;

/// A physical line.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    /// The text with its line end, without a byte-order mark.
    text: &'a str,
    /// Its offset in the file.
    start: usize,
}

/// An instruction's line with its continuations.
#[derive(Debug)]
pub(super) struct LogicalLine {
    /// The joined text, without blanks at its start.
    pub(super) text: String,
    pub(super) map: SourceMap,
    /// The first and the last physical line.
    pub(super) first: u32,
    pub(super) last: u32,
    /// The offset after the last physical line's text.
    pub(super) end: usize,
    /// The comments above.
    pub(super) comments: Vec<String>,
    /// Whether an empty line stands within.
    pub(super) empty_continuation: bool,
}

/// The body of a here-document.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) content: String,
    /// Whether its terminator was found before the end of the file.
    pub(super) terminated: bool,
}

/// Reads a file line by line, once, from start to end.
#[derive(Debug)]
pub(super) struct LineReader<'a> {
    source: &'a SourceFile,
    at: usize,
    /// Lines read so far.
    pub(super) line: u32,
    /// Whether the next line is longer than [`MAX_LINE`]: nothing is read any more.
    pub(super) too_long: bool,
    pub(super) directives: DirectiveReader,
    comments: Vec<String>,
}

impl<'a> LineReader<'a> {
    pub(super) fn new(source: &'a SourceFile) -> Self {
        Self {
            source,
            at: 0,
            line: 0,
            too_long: false,
            directives: DirectiveReader::default(),
            comments: Vec::new(),
        }
    }

    /// The escape token in force.
    pub(super) fn escape(&self) -> char {
        self.directives.escape
    }

    fn next_line(&mut self) -> Option<Line<'a>> {
        let text = self.source.text();
        let rest = text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let len = rest.find('\n').map_or(rest.len(), |at| at + 1);
        if rest[..len].trim_end_matches('\n').len() > MAX_LINE {
            self.too_long = true;
            return None;
        }
        let start = self.at;
        self.at += len;
        self.line += 1;
        let line = &rest[..len];
        let bare = if start == 0 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        Some(Line { text: bare, start: start + line.len() - bare.len() })
    }

    /// The next instruction's line.
    pub(super) fn next_logical(&mut self) -> Option<LogicalLine> {
        loop {
            let line = self.next_line()?;
            let trimmed = trim_line_end(line.text);
            let text = trimmed.trim_start();
            let start = line.start + trimmed.len() - text.len();
            if text.starts_with('#') {
                self.comment(line.text);
            }
            let is_directive = self.directives.line(text, self.line, Span::new(start, start + text.len()));
            if is_directive {
                self.comments.pop();
            }
            let (text, open) = if text.starts_with('#') { ("", false) } else { self.cut_continuation(text) };
            if text.is_empty() && !open {
                continue;
            }
            return Some(self.join(text, start, open));
        }
    }

    /// Joins what follows to a first line.
    fn join(&mut self, text: &str, start: usize, mut open: bool) -> LogicalLine {
        let mut joined = LogicalLine {
            text: text.to_owned(),
            map: SourceMap::unbroken(start),
            first: self.line,
            last: self.line,
            end: start + text.len(),
            comments: std::mem::take(&mut self.comments),
            empty_continuation: false,
        };
        while open {
            let Some(line) = self.next_line() else { break };
            let text = trim_line_end(line.text);
            let trimmed = text.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                joined.empty_continuation = true;
                continue;
            }
            let (text, goes_on) = self.cut_continuation(text);
            open = goes_on;
            joined.map.push(joined.text.len(), line.start);
            joined.text.push_str(text);
            joined.end = line.start + text.len();
        }
        joined.last = self.line;
        joined
    }

    /// Keeps a comment for the instruction below; an empty one separates.
    fn comment(&mut self, line: &str) {
        // One character is dropped, wherever the sign stands: a comment with blanks before it keeps its sign.
        let mut chars = line.chars();
        chars.next();
        let comment = chars.as_str().trim();
        if comment.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(comment.to_owned());
        }
    }

    /// The text before an escape token at the end of a line, and whether there was one.
    ///
    /// Blanks after the token do not count; an escaped token is none.
    fn cut_continuation<'t>(&self, text: &'t str) -> (&'t str, bool) {
        let escape = self.escape();
        match text.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(before) if !before.ends_with(escape) => (before, true),
            _ => (text, false),
        }
    }

    /// Reads a here-document's lines up to its terminator.
    pub(super) fn body(&mut self, terminator: &str, chomp: bool) -> Body {
        let mut content = String::new();
        while let Some(line) = self.next_line() {
            let text = trim_line_end(line.text);
            if (if chomp { text.trim_start_matches('\t') } else { text }) == terminator {
                return Body { content, terminated: true };
            }
            content.push_str(line.text);
        }
        Body { content, terminated: false }
    }

    /// The offset after the line read last, without its line end.
    pub(super) fn position(&self) -> usize {
        trim_line_end(&self.source.text()[..self.at]).len()
    }
}

fn trim_line_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}
