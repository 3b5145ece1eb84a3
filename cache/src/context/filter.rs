//! What belongs to a context.

use crate::pattern::{ParentMatches, PatternError, PatternMatcher};

/// What a filter says about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It belongs to the context.
    Include,
    /// Neither it nor anything below it does.
    Exclude,
    /// A directory that belongs only if something below it does.
    ExcludeButDescend,
}

/// The rules of an ignore file. Judged from several threads.
pub trait PathFilter: Send + Sync {
    /// Judges a path, relative to the context with `/` between its components; the path's parents count as well.
    fn decide(&self, path: &[u8], is_dir: bool) -> Decision;

    /// Whether it leaves nothing out, so that nothing need be asked.
    fn includes_everything(&self) -> bool;
}

/// A filter that leaves nothing out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Everything;

impl PathFilter for Everything {
    fn decide(&self, _path: &[u8], _is_dir: bool) -> Decision {
        Decision::Include
    }

    fn includes_everything(&self) -> bool {
        true
    }
}

impl PathFilter for PatternMatcher {
    fn decide(&self, path: &[u8], is_dir: bool) -> Decision {
        match self.matches(path) {
            false => Decision::Include,
            true if is_dir && self.may_take_back_below(path) => Decision::ExcludeButDescend,
            true => Decision::Exclude,
        }
    }

    fn includes_everything(&self) -> bool {
        self.is_empty()
    }
}

/// Filter and wanted paths together.
pub(super) struct Rules<'a> {
    filter: &'a dyn PathFilter,
    /// What is wanted; `None`: everything.
    include: Option<PatternMatcher>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(filter: &'a dyn PathFilter, include: &[String]) -> Result<Self, PatternError> {
        let include = if include.is_empty() { None } else { Some(PatternMatcher::new(include)?) };
        Ok(Self { filter, include })
    }

    /// Whether nothing is left out.
    pub(super) fn keep_all(&self) -> bool {
        self.include.is_none() && self.filter.includes_everything()
    }

    /// Judges a path; the second result goes to what lies below.
    pub(super) fn decide(
        &self,
        path: &[u8],
        is_dir: bool,
        parents: &ParentMatches,
    ) -> (Decision, ParentMatches) {
        let (wanted, matches) = match &self.include {
            Some(include) => include.visit(path, parents),
            None => (true, ParentMatches::default()),
        };
        let descends = |include: &PatternMatcher| is_dir && include.may_match_below(path);
        if !wanted && !self.include.as_ref().is_some_and(descends) {
            return (Decision::Exclude, matches);
        }
        let decision = match self.filter.decide(path, is_dir) {
            Decision::Include if !wanted => Decision::ExcludeButDescend,
            decision => decision,
        };
        (decision, matches)
    }
}
