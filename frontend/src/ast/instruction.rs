//! One instruction as written, with its place in the file.

use crate::ast::{Command, SourceMap};
use crate::lint::CheckOptions;
use crate::span::{Lines, Span};

/// An instruction: what was written and what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// The keyword as written.
    pub keyword: String,
    /// The typed form; [`Command::Invalid`] when an error was reported.
    pub command: Command,
    /// First to last line, heredocs included.
    pub lines: Lines,
    /// The bytes from the keyword to the end of the last line, heredocs included.
    pub span: Span,
    /// The flags as written, quotes removed.
    pub flags: Vec<String>,
    /// The arguments as BuildKit's parser splits them, not expanded.
    ///
    /// ENV and LABEL give triples of key, value and `=` (empty for the old form); HEALTHCHECK starts with its type.
    pub args: Vec<String>,
    /// Whether the arguments were a JSON array of strings.
    pub json: bool,
    /// The here-documents, in the order of their markers.
    pub heredocs: Vec<Heredoc>,
    /// The logical line: continuations joined, comments dropped, heredocs not included.
    pub original: String,
    /// Where the pieces of `original` come from.
    pub map: SourceMap,
    /// The comment lines directly above, without `#` and blanks; directives left out.
    pub comments: Vec<String>,
    /// The options of a `# check=` comment above.
    pub check: Option<CheckOptions>,
    /// ONBUILD's instruction, parsed but never typed: that happens in the image that uses it.
    pub trigger: Option<Box<Self>>,
}

impl Instruction {
    /// The keyword in lower case.
    pub fn name(&self) -> String {
        self.keyword.to_lowercase()
    }

    /// The logical line without blanks around it: descriptions and histories start from it.
    pub fn code(&self) -> &str {
        self.original.trim()
    }

    /// The span of the first occurrence of `text` in the instruction's line, or the whole first line.
    pub fn find(&self, text: &str) -> Span {
        let found = if text.is_empty() { None } else { self.original.find(text) };
        match found {
            Some(at) => self.map.span(at, at + text.len()),
            None => self.map.span(0, self.original.len()),
        }
    }

    /// Where findings about this instruction are reported.
    pub fn place(&self) -> Place<'_> {
        Place { lines: self.lines, check: self.check.as_ref() }
    }
}

/// The lines that a finding names and the `# check=` comment that applies there.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The lines.
    pub lines: Lines,
    /// The comment's options, merged over the file's.
    pub check: Option<&'a CheckOptions>,
}

impl Place<'_> {
    /// A place without a comment of its own.
    pub fn bare(lines: Lines) -> Self {
        Self { lines, check: None }
    }
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes: the file's name in COPY and ADD.
    pub name: String,
    /// The file descriptor before `<<`, 0 when not given.
    pub fd: u64,
    /// Whether the delimiter was unquoted, so that variables count.
    pub expand: bool,
    /// Whether the marker was `<<-`.
    pub chomp: bool,
    /// The lines up to the terminator, line ends and leading tabs kept.
    pub content: String,
}

impl Heredoc {
    /// The content without the tabs that start its lines, if the marker asks for that.
    pub fn chomped(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}
