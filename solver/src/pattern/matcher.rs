//! Matching paths, one at a time or while walking down a tree.

use super::compiled::{Pattern, PatternError};

/// What a list of what is left out says of a path while walking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Include,
    /// It does not; a directory need not be entered.
    Exclude,
    /// A directory that does not stay itself, but something below it may: enter it.
    Descend,
}

/// Which patterns matched a directory or one above it; handed down to its children.
///
/// The default is for the root's children.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParentMatches(Vec<bool>);

/// A compiled list of patterns. Matching takes `&self`, so threads can share it.
///
/// Paths are relative, `/` between their components, none at the ends.
#[derive(Debug, Clone, Default)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
    inverts: bool,
}

impl PatternMatcher {
    /// Compiles patterns. They are trimmed and cleaned, empty ones dropped; `!` makes an exception.
    ///
    /// # Errors
    /// On `!` alone and on malformed patterns.
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

    /// Whether no pattern is left: nothing matches.
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

    /// Whether a path matches: as a walk from the root would judge it.
    pub fn matches(&self, path: &[u8]) -> bool {
        let mut parents = ParentMatches::default();
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let mut matched = Vec::new();
            self.try_all(&path[..at], &parents, |hit| matched.push(hit));
            parents = ParentMatches(matched);
        }
        self.try_all(path, &parents, |_| {})
    }

    /// [`Self::matches`] while walking: the second result belongs to what lies below `path`.
    pub fn visit(&self, path: &[u8], parents: &ParentMatches) -> (bool, ParentMatches) {
        let mut matched = Vec::with_capacity(self.patterns.len());
        let matches = self.try_all(path, parents, |hit| matched.push(hit));
        (matches, ParentMatches(matched))
    }

    /// Judges a path while walking, for a list of what is left out; a directory's second result goes to its children.
    ///
    /// A directory to descend into stays if something below it does. For what is not a directory, or is not entered,
    /// nothing is allocated and the second result is empty.
    pub fn judge(&self, path: &[u8], is_dir: bool, parents: &ParentMatches) -> (Verdict, ParentMatches) {
        let (matches, below) = match is_dir {
            true => self.visit(path, parents),
            false => (self.try_all(path, parents, |_| {}), ParentMatches::default()),
        };
        match matches {
            false => (Verdict::Include, below),
            true if is_dir && self.may_take_back_below(path) => (Verdict::Descend, below),
            true => (Verdict::Exclude, ParentMatches::default()),
        }
    }

    /// Whether a pattern that is no exception might match something below the directory `dir` that does not match
    /// because `dir` does.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| !pattern.invert && pattern.may_match_below(dir))
    }

    /// Whether an exception might match something below the directory `dir`.
    pub fn may_take_back_below(&self, dir: &[u8]) -> bool {
        self.inverts && self.patterns.iter().any(|pattern| pattern.invert && pattern.may_match_below(dir))
    }

    /// Tries the patterns in order, tells each one's result, and returns the last word.
    fn try_all(&self, path: &[u8], parents: &ParentMatches, mut tell: impl FnMut(bool)) -> bool {
        let mut matched = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            // A pattern that would not change the answer is not tried, and does not count as a match below.
            let hit = parents.0.get(index).copied().unwrap_or(false)
                || pattern.invert == matched && pattern.matches(path);
            tell(hit);
            if hit {
                matched = !pattern.invert;
            }
        }
        matched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], yes: &[&str], no: &[&str]) {
        let matcher = PatternMatcher::new(patterns).unwrap();
        for path in yes {
            assert!(matcher.matches(path.as_bytes()), "{patterns:?} should match {path}");
        }
        for path in no {
            assert!(!matcher.matches(path.as_bytes()), "{patterns:?} should not match {path}");
        }
    }

    #[test]
    fn patterns() {
        check(&["*.log"], &["a.log", "a.log/x"], &["sub/a.log"]);
        check(&["**/*.log"], &["a.log", "sub/b.log", "sub/deep/d.log"], &["a.logs"]);
        check(&["sub/deep"], &["sub/deep", "sub/deep/d"], &["deep", "sub/deeper"]);
        check(&["/sub/"], &[], &["sub", "sub/x"]);
        check(&["s?b/*.txt", "[mn]ain.*"], &["sub/c.txt", "main.txt"], &["sub/deep/c.txt", "rain.txt"]);
        check(&["a/**/end"], &["a/end", "a/1/end", "a/1/2/end"], &["a/1/2/ends", "b/end"]);
        check(&["all/**"], &["all/one", "all/sub/two"], &["all", "allx"]);
        check(&["b**/z"], &["bird/z", "bird/x/z"], &["z", "bird/zz"]);
        check(&["**"], &["a", "a/b"], &[]);
        check(&["docs", "!docs/public"], &["docs/x"], &["docs/public", "docs/public/x", "y"]);
        check(&[r"\#hash", "a/../b//c"], &["#hash", "b/c"], &["a"]);
    }

    #[test]
    fn bytes_that_are_no_utf8_match_as_one_character_each() {
        let matches = |pattern, path: &[u8]| PatternMatcher::new(&[pattern]).unwrap().matches(path);
        assert!(matches("a?b", b"a\xffb"));
        assert!(!matches("a?b", b"a\xff\xfeb"));
        assert!(matches("a*b", b"a\xff\xfeb"));
        assert!(matches("dir", b"dir/\xff"));
        assert!(matches("a?b", "aäb".as_bytes()));
    }

    #[test]
    fn walking_gives_the_same_answer() {
        let matcher = PatternMatcher::new(&["lib/**", "!lib/*/keep", "docs", "!docs/p"]).unwrap();
        for path in ["lib/a/keep", "lib/a/drop", "lib/a/b/keep", "docs/p/x", "docs/q/x", "lib/keep"] {
            let mut parents = ParentMatches::default();
            for (at, _) in path.match_indices('/') {
                parents = matcher.visit(&path.as_bytes()[..at], &parents).1;
            }
            let walked = matcher.visit(path.as_bytes(), &parents).0;
            assert_eq!(walked, matcher.matches(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn what_may_lie_below() {
        let matcher = PatternMatcher::new(&["src/*/x", "doc/**/y", "!a/b/c"]).unwrap();
        for (dir, want) in [("src", true), ("src/q", true), ("other", false), ("doc/1/2/3", true)] {
            assert_eq!(matcher.may_match_below(dir.as_bytes()), want, "{dir}");
        }
        assert!(matcher.may_take_back_below(b"a/b"));
        assert!(!matcher.may_take_back_below(b"a/x"));
    }
}
