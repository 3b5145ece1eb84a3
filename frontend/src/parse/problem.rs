//! An error before it has a place.

use crate::ast::SourceMap;
use crate::diagnostic::{Diagnostic, Phase};
use crate::span::Lines;

/// What is wrong, and with which word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    message: String,
    word: Option<String>,
    hints: Vec<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), word: None, hints: Vec::new() }
    }

    /// Names the word to underline: its first occurrence in the line.
    #[must_use]
    pub(super) fn about(mut self, word: &str) -> Self {
        self.word = Some(word.to_owned());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Gives the error its place.
    pub(super) fn at(self, phase: Phase, lines: Lines, original: &str, map: &SourceMap) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(phase, self.message).at(lines);
        diagnostic.hints = self.hints;
        let word = self.word.filter(|word| !word.is_empty());
        match word.and_then(|word| Some((original.find(&word)?, word.len()))) {
            Some((at, len)) => diagnostic.mark(map.span(at, at + len)),
            None => diagnostic,
        }
    }
}
