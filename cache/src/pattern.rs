//! The patterns of COPY's sources: Go's `path.Match`, of which no wildcard crosses a slash.
//!
//! Include and exclude lists are another language, that of [`solver::pattern`].

mod glob;
mod split;

pub use glob::{BadPattern, glob_match};
pub use split::{has_wildcards, split_at_wildcard};
