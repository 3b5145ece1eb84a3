//! Lists of patterns, as the include and exclude lists of operations and ignore files have them.
//!
//! The rules are those of moby/patternmatcher: patterns are tried in order, the last match wins, `!` takes a path back in,
//! a pattern that matches a directory covers what is below it, and `**` crosses directories. Paths are bytes; what is
//! no UTF-8 in them counts as U+FFFD, byte by byte, as in Go.

mod compiled;
mod matcher;

pub use compiled::{PatternError, clean};
pub use matcher::{ParentMatches, PatternMatcher, Verdict};
