//! `.dockerignore`: which paths of a context are left out.
//!
//! The rules are those of moby/patternmatcher: patterns are tried in order, the last match wins, `!` takes a path back in,
//! a pattern that matches a directory covers what is below it, and `**` crosses directories.

mod matcher;
mod pattern;
mod read;

pub use matcher::{IgnoreMatcher, Parents, Verdict};
pub use pattern::{PatternError, clean};
pub use read::read_patterns;
