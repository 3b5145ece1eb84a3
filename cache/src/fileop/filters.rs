//! Include and exclude lists.

use solver::pattern::{ParentMatches, PatternMatcher};

use super::error::ActionError;

/// What is taken of a directory: what `include` names, if there is such a list, and `exclude` does not.
#[derive(Debug, Default)]
pub(super) struct Filters {
    pub(super) include: Option<PatternMatcher>,
    pub(super) exclude: Option<PatternMatcher>,
}

/// What the lists matched on the way down to a directory.
#[derive(Debug, Clone, Default)]
pub(super) struct Above {
    pub(super) include: ParentMatches,
    pub(super) exclude: ParentMatches,
}

/// What the lists say of one path.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// `include` names it, or there is no such list.
    pub(super) included: bool,
    /// `exclude` names it.
    pub(super) excluded: bool,
    /// For what is below it.
    pub(super) below: Above,
}

impl Filters {
    /// Reads two lists; an empty one is none.
    ///
    /// # Errors
    /// A malformed pattern.
    pub(super) fn new(include: &[String], exclude: &[String]) -> Result<Self, ActionError> {
        let matcher = |patterns: &[String], list| match patterns {
            [] => Ok(None),
            patterns => PatternMatcher::new(patterns)
                .map(Some)
                .map_err(|source| ActionError::Pattern { list, source }),
        };
        let include = matcher(include, "includepatterns")?;
        Ok(Self { include, exclude: matcher(exclude, "excludepatterns")? })
    }

    /// Whether everything is taken.
    pub(super) fn take_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// Judges the path of an object in a directory that `above` stands for.
    pub(super) fn judge(&self, path: &[u8], above: &Above) -> Verdict {
        let mut verdict = Verdict { included: true, ..Verdict::default() };
        if let Some(include) = &self.include {
            (verdict.included, verdict.below.include) = include.visit(path, &above.include);
        }
        if let Some(exclude) = &self.exclude {
            (verdict.excluded, verdict.below.exclude) = exclude.visit(path, &above.exclude);
        }
        verdict
    }

    /// Whether `exclude` may take back something below an excluded directory.
    pub(super) fn may_take_back_below(&self, path: &[u8]) -> bool {
        self.exclude.as_ref().is_some_and(|list| list.may_take_back_below(path))
    }
}

impl Verdict {
    /// Whether it is taken.
    pub(super) fn takes(&self) -> bool {
        self.included && !self.excluded
    }
}
