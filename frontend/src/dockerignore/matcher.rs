//! Matching paths, one at a time or while walking down a tree.

use crate::dockerignore::pattern::{Pattern, PatternError};

/// What to do with a path while walking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It belongs to the context.
    Include,
    /// It does not; a directory need not be entered.
    Exclude,
    /// A directory that does not belong itself, but something below it may: enter it.
    Descend,
}

/// Which patterns matched a directory or one above it; handed down to its children.
///
/// The default is for the root's children.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parents(Vec<bool>);

/// A compiled list of patterns. Matching takes `&self`, so threads can share it.
#[derive(Debug, Clone, Default)]
pub struct IgnoreMatcher {
    patterns: Vec<Pattern>,
    inverts: bool,
}

impl IgnoreMatcher {
    /// Compiles patterns as [`super::read_patterns`] gives them, or as `--exclude` has them.
    ///
    /// # Errors
    /// On `!` alone and on patterns with unclosed brackets.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        let mut matcher = Self::default();
        for text in patterns {
            if let Some(pattern) = Pattern::new(text.as_ref())? {
                matcher.inverts |= pattern.invert;
                matcher.patterns.push(pattern);
            }
        }
        Ok(matcher)
    }

    /// Whether no pattern is left: nothing is ignored.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern starts with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.inverts
    }

    /// The patterns as cleaned, without `!`, and whether they had it.
    pub fn patterns(&self) -> impl Iterator<Item = (&str, bool)> {
        self.patterns.iter().map(|pattern| (pattern.text.as_str(), pattern.invert))
    }

    /// Whether a path is ignored: as a walk from the root would judge it. `path` is relative, with `/`.
    pub fn is_ignored(&self, path: &str) -> bool {
        let mut parents = Parents::default();
        for (at, _) in path.match_indices('/') {
            let mut matched = Vec::new();
            self.judge(&path[..at], &parents, |hit| matched.push(hit));
            parents = Parents(matched);
        }
        self.judge(path, &parents, |_| {})
    }

    /// Judges a path while walking; a directory's second result goes to its children.
    ///
    /// `path` is relative to the root of the context, `/` between its parts, none at the ends. A directory to descend
    /// into belongs to the context if something below it does. For what is not a directory, or is not entered, nothing
    /// is allocated and the second result is empty.
    pub fn visit(&self, path: &str, is_dir: bool, parents: &Parents) -> (Verdict, Parents) {
        let mut matched = Vec::new();
        let ignored = if is_dir {
            matched.reserve_exact(self.patterns.len());
            self.judge(path, parents, |hit| matched.push(hit))
        } else {
            self.judge(path, parents, |_| {})
        };
        match ignored {
            false => (Verdict::Include, Parents(matched)),
            true if is_dir && self.inverts && self.may_take_back_below(path) => {
                (Verdict::Descend, Parents(matched))
            }
            true => (Verdict::Exclude, Parents::default()),
        }
    }

    /// Tries the patterns in order, tells each one's result, and returns the last word.
    fn judge(&self, path: &str, parents: &Parents, mut tell: impl FnMut(bool)) -> bool {
        let mut ignored = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            // A pattern that would not change the answer is not tried, and does not count as a match below.
            let hit = parents.0.get(index).copied().unwrap_or(false)
                || pattern.invert == ignored && pattern.matches(path);
            tell(hit);
            if hit {
                ignored = !pattern.invert;
            }
        }
        ignored
    }

    fn may_take_back_below(&self, dir: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.invert && pattern.may_match_below(dir))
    }
}
