//! A path in the first line, an ignore file in the others: a walk and a single question agree.

use frontend::dockerignore::read_patterns;
use solver::pattern::{ParentMatches, PatternMatcher, Verdict};

pub(super) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (path, file) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(matcher) = PatternMatcher::new(&read_patterns(file.as_bytes())) else { return };
    let ignored = matcher.matches(path.as_bytes());
    let mut parents = ParentMatches::default();
    for (at, _) in path.match_indices('/') {
        let (verdict, below) = matcher.judge(&path.as_bytes()[..at], true, &parents);
        if verdict == Verdict::Exclude {
            assert!(ignored, "a directory was left out that holds something");
            return;
        }
        parents = below;
    }
    assert_eq!(matcher.judge(path.as_bytes(), false, &parents).0 == Verdict::Exclude, ignored);
}
