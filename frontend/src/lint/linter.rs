//! Where findings go.

use std::collections::BTreeSet;

use crate::ast::Place;
use crate::diagnostic::{Diagnostic, Phase, Severity};
use crate::lint::{CheckOptions, Rule};
use crate::span::{Lines, Span};

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What is wrong, with names.
    pub message: String,
    /// Where.
    pub lines: Lines,
    /// The word meant, when it is known.
    pub span: Option<Span>,
}

impl Finding {
    /// One line, as BuildKit's progress shows it: `Rule: message (line 3)`.
    pub fn short(&self) -> String {
        let line = self.lines.start;
        let place = if line > 0 { format!(" (line {line})") } else { String::new() };
        format!("{}: {}{place}", self.rule.name(), self.message)
    }

    /// The finding as a warning, to be rendered with carets.
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic {
            severity: Severity::Warning,
            rule: Some(self.rule.name()),
            lines: Some(self.lines),
            spans: self.span.into_iter().collect(),
            url: Some(self.rule.url()).filter(|url| !url.is_empty()),
            ..Diagnostic::error(Phase::Convert, self.message.clone())
        }
    }
}

/// Collects findings under the file's options and those of comments.
#[derive(Debug, Clone, Default)]
pub struct Linter {
    options: CheckOptions,
    findings: Vec<Finding>,
}

impl Linter {
    /// A linter with the file's options, or the build's that replace them.
    pub fn new(options: CheckOptions) -> Self {
        Self { options, findings: Vec::new() }
    }

    /// Adds a finding, unless an option keeps its rule from running.
    pub fn report(&mut self, place: Place<'_>, rule: Rule, message: impl Into<String>) {
        self.report_at(place, rule, message, None);
    }

    /// As [`Self::report`], with the word meant.
    pub fn report_at(
        &mut self,
        place: Place<'_>,
        rule: Rule,
        message: impl Into<String>,
        span: Option<Span>,
    ) {
        let name = rule.name();
        let runs = if rule.experimental() {
            self.options.wants(name) || place.check.is_some_and(|check| check.wants(name))
        } else {
            !self.options.skips(name) && !place.check.is_some_and(|check| check.skips(name))
        };
        if runs {
            self.findings.push(Finding { rule, message: message.into(), lines: place.lines, span });
        }
    }

    /// The findings in the order in which they came.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Takes back all but the first `count` findings.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.findings.truncate(count);
    }

    /// The findings in the order in which they came, which is that of BuildKit's answers.
    pub fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// The message of the error that fails the build, when findings are errors and there are any.
    pub fn failure(&self) -> Option<String> {
        if !self.options.error || self.findings.is_empty() {
            return None;
        }
        let rules: BTreeSet<&str> = self.findings.iter().map(|finding| finding.rule.name()).collect();
        let rules: Vec<&str> = rules.into_iter().collect();
        Some(format!("lint violation found for rules: {}", rules.join(", ")))
    }
}
