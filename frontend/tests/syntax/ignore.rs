//! `.dockerignore`: reading, matching, walking.

use std::collections::BTreeMap;

use frontend::dockerignore::read_patterns;
use proptest::prelude::*;
use solver::pattern::{ParentMatches, PatternMatcher, Verdict};

fn ignored(patterns: &str, path: &str) -> bool {
    PatternMatcher::new(&read_patterns(patterns.as_bytes()))
        .expect("the patterns are fine")
        .matches(path.as_bytes())
}

#[test]
fn reading() {
    let text = "\u{feff}# no comment: the mark goes first\n#comment\n\n  blanks  \n/rooted\ntrail/\n./dot\na/../up\n\
                sl//ash\n! back\n!/root\n!\n\\#sharp\ncarriage\r\n/\n.\n";
    let expected = [
        "blanks", "rooted", "trail", "dot", "up", "sl/ash", "!back", "!root", "!", "\\#sharp", "carriage",
        "/", ".",
    ];
    assert_eq!(read_patterns(text.as_bytes()), expected);
}

#[test]
fn matching() {
    let cases = [
        ("a", "a", true),
        ("a", "a/b/c", true),
        ("a", "b/a", false),
        ("*.md", "x.md", true),
        ("*.md", "d/x.md", false),
        ("**/*.md", "x.md", true),
        ("**/*.md", "d/e/x.md", true),
        ("d/*", "d/e/f", true),
        ("d/**", "d", false),
        ("d/**", "d/e", true),
        ("**/d", "d", true),
        ("**/d", "c/d/e", true),
        ("**/d", "cd", false),
        ("a**b", "ab", true),
        ("a**b", "axb", false),
        ("a**b", "ax/b", true),
        ("**", "any/thing", true),
        ("a?c", "abc", true),
        ("a?c", "a/c", false),
        ("[a-c]x", "bx", true),
        ("[^a-c]x", "bx", false),
        ("\\*", "*", true),
        ("\\*", "a", false),
        ("\\#x", "#x", true),
        (".", "a", false),
        ("a.b+c", "a.b+c", true),
        ("a.b", "axb", false),
        ("ä*", "äö", true),
    ];
    for (pattern, path, expected) in cases {
        assert_eq!(ignored(pattern, path), expected, "{pattern} on {path}");
    }
}

#[test]
fn the_last_match_wins() {
    let patterns = "*\n!src\nsrc/*.tmp\n!src/keep.tmp\n";
    let cases =
        [("other", true), ("src", false), ("src/a.rs", false), ("src/x.tmp", true), ("src/keep.tmp", false)];
    for (path, expected) in cases {
        assert_eq!(ignored(patterns, path), expected, "{path}");
    }
}

#[test]
fn malformed_patterns() {
    for pattern in ["!", "a[", "a[]", "a[b-]", "a\\", "[z-a]"] {
        assert!(PatternMatcher::new(&[pattern]).is_err(), "{pattern}");
    }
}

/// A walk's verdicts, one line per path.
fn walk(patterns: &str, paths: &[&str]) -> String {
    let matcher = PatternMatcher::new(&read_patterns(patterns.as_bytes())).expect("the patterns are fine");
    let mut parents: BTreeMap<&str, ParentMatches> = BTreeMap::new();
    let mut lines = String::new();
    for path in paths {
        let (path, is_dir) = path.strip_suffix('/').map_or((*path, false), |path| (path, true));
        let parent =
            path.rsplit_once('/').map_or_else(ParentMatches::default, |(dir, _)| parents[dir].clone());
        let (verdict, below) = matcher.judge(path.as_bytes(), is_dir, &parent);
        if verdict != Verdict::Exclude {
            parents.insert(path, below);
        }
        lines += &format!("{path} {verdict:?}\n");
    }
    lines
}

#[test]
fn walking() {
    let paths =
        ["node_modules/", "out/", "out/keep/", "out/keep/a", "out/drop", "src/", "src/x.o", "src/x.c"];
    insta::assert_snapshot!(walk("node_modules\nout\n!out/keep\n**/*.o\n", &paths), @r"
    node_modules Exclude
    out Descend
    out/keep Include
    out/keep/a Include
    out/drop Exclude
    src Include
    src/x.o Exclude
    src/x.c Include
    ");
}

#[test]
fn an_exception_may_lie_anywhere_below() {
    let paths = ["a/", "a/b/", "a/b/x.txt", "a/b/y"];
    insta::assert_snapshot!(walk("*\n!**/*.txt\n", &paths), @r"
    a Descend
    a/b Descend
    a/b/x.txt Include
    a/b/y Exclude
    ");
}

/// The rules of one pattern, spelled out with no thought of speed.
fn matches(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*'] | ['*', '*', '/'] => true,
        ['*', '*', '/', rest @ ..] | ['*', '*', rest @ ..] => {
            matches(rest, path) || (0..path.len()).any(|at| path[at] == '/' && matches(rest, &path[at + 1..]))
        }
        ['*', rest @ ..] => {
            matches(rest, path)
                || matches!(path, [first, tail @ ..] if *first != '/' && matches(pattern, tail))
        }
        ['?', rest @ ..] => matches!(path, [first, tail @ ..] if *first != '/' && matches(rest, tail)),
        [literal, rest @ ..] => matches!(path, [first, tail @ ..] if first == literal && matches(rest, tail)),
    }
}

proptest! {
    #[test]
    fn the_automaton_equals_the_rules(pattern in "[ab*?]{1,6}(/[ab*?]{1,5}){0,2}", path in "[ab]{1,4}(/[ab]{1,3}){0,3}") {
        // A leading `**` before mere letters is a suffix to BuildKit, wherever it starts.
        let tail = pattern.trim_start_matches('*');
        prop_assume!(!pattern.starts_with("**") || tail.starts_with('/'));
        prop_assume!(!pattern.contains("***"));
        let matcher = PatternMatcher::new(&[pattern.as_str()]).expect("the pattern is fine");
        let chars = |text: &str| text.chars().collect::<Vec<char>>();
        let prefixes = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path.as_str()]);
        let expected = prefixes.into_iter().any(|prefix| matches(&chars(&pattern), &chars(prefix)));
        prop_assert_eq!(matcher.matches(path.as_bytes()), expected);
    }

    #[test]
    fn a_walk_agrees_with_single_answers(patterns in proptest::collection::vec("!?[ab*]{1,3}(/[ab*]{1,3}){0,2}", 1..5), path in "[ab]{1,2}(/[ab]{1,2}){0,3}") {
        let matcher = PatternMatcher::new(&patterns).expect("the patterns are fine");
        let mut parents = ParentMatches::default();
        let mut verdict = Verdict::Include;
        for (at, _) in path.match_indices('/') {
            (verdict, parents) = matcher.judge(&path.as_bytes()[..at], true, &parents);
            if verdict == Verdict::Exclude { break; }
        }
        if verdict != Verdict::Exclude {
            verdict = matcher.judge(path.as_bytes(), false, &parents).0;
        }
        prop_assert_eq!(verdict == Verdict::Exclude, matcher.matches(path.as_bytes()));
    }

    #[test]
    fn no_pattern_panics(pattern in "\\PC{0,40}", path in "\\PC{0,40}") {
        if let Ok(matcher) = PatternMatcher::new(&[pattern]) {
            matcher.matches(path.as_bytes());
        }
    }
}
