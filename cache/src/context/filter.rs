//! What belongs to a context.

use solver::pattern::{ParentMatches, PatternError, PatternMatcher, Verdict};

/// The rules of an ignore file and wanted paths together.
pub(super) struct Rules<'a> {
    ignored: &'a PatternMatcher,
    /// What is wanted; `None`: everything.
    include: Option<PatternMatcher>,
}

/// What both lists said of a directory; handed down to what it holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Inherited {
    ignored: ParentMatches,
    include: ParentMatches,
}

impl<'a> Rules<'a> {
    pub(super) fn new(ignored: &'a PatternMatcher, include: &[String]) -> Result<Self, PatternError> {
        let include = if include.is_empty() { None } else { Some(PatternMatcher::new(include)?) };
        Ok(Self { ignored, include })
    }

    /// Whether nothing is left out.
    pub(super) fn keep_all(&self) -> bool {
        self.include.is_none() && self.ignored.is_empty()
    }

    /// Judges a path; the second result goes to what lies below.
    pub(super) fn judge(&self, path: &[u8], is_dir: bool, above: &Inherited) -> (Verdict, Inherited) {
        let mut below = Inherited::default();
        let mut wanted = true;
        if let Some(include) = &self.include {
            (wanted, below.include) = include.visit(path, &above.include);
            if !(wanted || is_dir && include.may_match_below(path)) {
                return (Verdict::Exclude, below);
            }
        }
        let verdict;
        (verdict, below.ignored) = self.ignored.judge(path, is_dir, &above.ignored);
        match verdict {
            Verdict::Include if !wanted => (Verdict::Descend, below),
            verdict => (verdict, below),
        }
    }
}
