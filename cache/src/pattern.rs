//! The two pattern languages of COPY: Go's `path.Match` for sources, moby's patternmatcher for include and exclude lists.
//!
//! [`glob`] stays within one path component per `*`; [`matcher`] also knows `**`, `!` and what a matched
//! parent directory means for all below it. [`split`] parts a source at its first wildcard.

mod glob;
mod matcher;
mod split;

pub use glob::{BadPattern, glob_match};
pub use matcher::{ParentMatches, PatternError, PatternMatcher};
pub use split::{has_wildcards, split_at_wildcard};
