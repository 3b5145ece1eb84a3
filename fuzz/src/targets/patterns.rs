//! A path in the first line, patterns of COPY or of a session in the others.

use cache::pattern::glob_match;
use solver::pattern::{ParentMatches, PatternMatcher};

pub(super) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let path = lines.next().unwrap_or_default();
    let patterns: Vec<&str> = lines.collect();
    for pattern in &patterns {
        // Both are linear or quadratic: a hang is a finding.
        let _ = glob_match(pattern.as_bytes(), path.as_bytes());
    }
    let Ok(matcher) = PatternMatcher::new(&patterns) else { return };
    let matched = matcher.matches(path.as_bytes());
    if matcher.has_exceptions() {
        // Here moby's two ways differ, and so do ours: a walk forgets exceptions that nothing called for.
        return;
    }
    let mut parents = ParentMatches::default();
    let (mut may, mut above) = (true, false);
    for (at, _) in path.match_indices('/') {
        let dir = &path.as_bytes()[..at];
        may &= above || matcher.may_match_below(dir);
        let (hit, below) = matcher.visit(dir, &parents);
        (above, parents) = (hit, below);
    }
    let (walked, _) = matcher.visit(path.as_bytes(), &parents);
    assert_eq!(walked, matched, "a walk and a single question disagree");
    assert!(above || may || !matched, "a directory was passed over that holds something");
}
