//! What the frontend has to say about a file: errors and lint findings, with places and hints.

use std::borrow::Cow;
use std::fmt;

use crate::excerpt::excerpt;
use crate::span::{Lines, SourceFile, Span};

/// What is wrong with an instruction before the first FROM.
pub(crate) const NO_STAGE: &str = "no build stage in current context";

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The build cannot go on.
    Error,
    /// A lint finding.
    Warning,
}

/// Which of BuildKit's passes reports such an error; the passes run one after the other over the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Lines, continuations, heredocs, JSON forms.
    Parser,
    /// Typed instructions and their flags.
    Instructions,
    /// Lowering.
    Convert,
}

impl Phase {
    /// The phase's name in the corpus records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parser => "parser",
            Self::Instructions => "instructions",
            Self::Convert => "convert",
        }
    }
}

/// One error or finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The pass that BuildKit would report it from.
    pub phase: Phase,
    /// The lint rule's name, for findings.
    pub rule: Option<&'static str>,
    /// One line, without the file and line.
    pub message: String,
    /// The lines that BuildKit names; `None` where it names none.
    pub lines: Option<Lines>,
    /// The words meant, for carets; empty when the lines say it all.
    pub spans: Vec<Span>,
    /// What to do about it, each printed under the excerpt.
    pub hints: Vec<String>,
    /// A page that says more, for findings.
    pub url: Option<&'static str>,
}

impl Diagnostic {
    /// An error of a phase, without a place yet.
    pub fn error(phase: Phase, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            phase,
            rule: None,
            message: message.into(),
            lines: None,
            spans: Vec::new(),
            hints: Vec::new(),
            url: None,
        }
    }

    /// Names the lines, unless they are named already: the innermost place wins.
    #[must_use]
    pub fn at(mut self, lines: Lines) -> Self {
        self.lines.get_or_insert(lines);
        self
    }

    /// Adds a span to underline.
    #[must_use]
    pub fn mark(mut self, span: Span) -> Self {
        self.spans.push(span);
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The message as BuildKit words it where it stands alone: errors of instructions name their line.
    pub fn told(&self) -> Cow<'_, str> {
        match self.lines {
            Some(lines) if self.phase == Phase::Instructions && self.message != NO_STAGE => {
                format!("dockerfile parse error on line {}: {}", lines.start, self.message).into()
            }
            _ => self.message.as_str().into(),
        }
    }

    /// The line that an excerpt is about, from 1: that of the first span where BuildKit names none.
    pub fn line(&self, source: &SourceFile) -> Option<u32> {
        let named = self.lines.map(|lines| lines.start).filter(|&line| line > 0);
        named.or_else(|| self.spans.first().map(|span| source.locate(span.start).line))
    }

    /// Renders the error as a failed build prints it: the excerpt with its lines marked, the message, the hints.
    ///
    /// The excerpt is BuildKit's, under a line `NAME:LINE`, with carets below the words meant.
    pub fn render(&self, source: &SourceFile) -> String {
        let lines = match self.lines {
            Some(lines) if lines.start > 0 => Some(lines),
            _ => self.line(source).map(Lines::single),
        };
        let mut text = lines.and_then(|lines| excerpt(source, &[lines], &self.spans)).unwrap_or_default();
        match (self.severity, self.rule) {
            (Severity::Error, _) => text.push_str("error: "),
            (Severity::Warning, None) => text.push_str("warning: "),
            (Severity::Warning, Some(rule)) => text.push_str(&format!("warning: {rule}: ")),
        }
        text.push_str(&self.message);
        text.push('\n');
        for hint in &self.hints {
            text.push_str("hint: ");
            text.push_str(hint);
            text.push('\n');
        }
        if let Some(url) = self.url {
            text.push_str(&format!("see {url}\n"));
        }
        text
    }
}

/// Renders all errors of a file, that which BuildKit reports at the end, where the eye falls.
///
/// After `limit` errors the others are only counted.
pub fn report(diagnostics: &[Diagnostic], source: &SourceFile, limit: usize) -> String {
    let Some((first, others)) = diagnostics.split_first() else { return String::new() };
    let shown = others.len().min(limit.saturating_sub(1));
    let mut text = String::new();
    for diagnostic in &others[..shown] {
        text.push_str(&diagnostic.render(source));
        text.push('\n');
    }
    if shown < others.len() {
        text.push_str(&format!("… and {} more errors\n\n", others.len() - shown));
    }
    text.push_str(&first.render(source));
    text
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}
