//! Include and exclude lists, with the meaning of moby's patternmatcher (`patternmatcher.go`).

use super::glob::{BadPattern, glob_match};

/// A list that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `!` with nothing behind it.
    #[error("illegal exclusion pattern: \"!\"")]
    BareExclusion,
    /// Unclosed brackets and the like.
    #[error(transparent)]
    Bad(#[from] BadPattern),
}

/// A compiled list; the last pattern that matches a path or one of its parents decides.
#[derive(Debug, Clone, Default)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
}

/// Which patterns matched a directory or one above it; handed down to what it holds.
///
/// The default knows nothing: then the parents of a path are tried as well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParentMatches(Vec<bool>);

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    exclusion: bool,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// These bytes.
    Text(Vec<u8>),
    /// `?`: one character that is no slash.
    One,
    /// `*`: any number of those.
    Many,
    /// `**` inside: nothing, or anything that ends with a slash.
    Dirs,
    /// `**` at the end: anything.
    Rest,
    /// `[…]`, brackets included.
    Class(Vec<u8>),
}

impl PatternMatcher {
    /// Compiles a list. Patterns are trimmed and cleaned, empty ones dropped; `!` makes an exception.
    ///
    /// # Errors
    /// On `!` alone and on malformed patterns.
    pub fn new<S: AsRef<str>>(list: &[S]) -> Result<Self, PatternError> {
        let mut patterns = Vec::with_capacity(list.len());
        for text in list {
            let text = text.as_ref().trim();
            if text.is_empty() {
                continue;
            }
            let clean = clean(text);
            let (text, exclusion) = match clean.strip_prefix('!') {
                Some("") => return Err(PatternError::BareExclusion),
                Some(rest) => (rest.to_owned(), true),
                None => (clean, false),
            };
            glob_match(text.as_bytes(), b".")?;
            let tokens = compile(text.as_bytes());
            patterns.push(Pattern { text, exclusion, tokens });
        }
        Ok(Self { patterns })
    }

    /// Whether no pattern is left.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern makes an exception.
    pub fn has_exclusions(&self) -> bool {
        self.patterns.iter().any(|p| p.exclusion)
    }

    /// Whether `path` (relative, `/` between components) or a parent of it matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.visit(path, &ParentMatches::default()).0
    }

    /// [`Self::matches`] while walking: the second result belongs to what lies below `path`.
    pub fn visit(&self, path: &[u8], parents: &ParentMatches) -> (bool, ParentMatches) {
        let mut matched = false;
        let mut hits = vec![false; self.patterns.len()];
        for (i, pattern) in self.patterns.iter().enumerate() {
            let mut hit = parents.0.get(i).copied().unwrap_or(false);
            if !hit {
                // A pattern that would not change the answer is not tried.
                if pattern.exclusion != matched {
                    continue;
                }
                hit = pattern.matches(path) || parents.0.is_empty() && pattern.matches_a_parent(path);
            }
            hits[i] = hit;
            if hit {
                matched = !pattern.exclusion;
            }
        }
        (matched, ParentMatches(hits))
    }

    /// Whether a pattern that is no exception might match something below the directory `dir`.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        self.patterns.iter().any(|p| !p.exclusion && p.may_match_below(dir))
    }

    /// Whether an exception might match something below the directory `dir`.
    pub fn may_take_back_below(&self, dir: &[u8]) -> bool {
        self.patterns.iter().any(|p| p.exclusion && p.may_match_below(dir))
    }
}

impl Pattern {
    fn matches(&self, path: &[u8]) -> bool {
        matches(&self.tokens, path)
    }

    fn matches_a_parent(&self, path: &[u8]) -> bool {
        (0..path.len()).filter(|&i| path[i] == b'/').any(|i| self.matches(&path[..i]))
    }

    /// Compares component by component up to the first `**`; may answer yes too often, never no.
    fn may_match_below(&self, dir: &[u8]) -> bool {
        let mut wanted = self.text.as_bytes().split(|&b| b == b'/');
        for have in dir.split(|&b| b == b'/') {
            match wanted.next() {
                None => return true,
                Some(want) if want.windows(2).any(|w| w == b"**") => return true,
                Some(want) if !glob_match(want, have).unwrap_or(true) => return false,
                Some(_) => {}
            }
        }
        true
    }
}

fn compile(pattern: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            b'*' if pattern.get(at + 1) == Some(&b'*') => {
                at += 2;
                at += usize::from(pattern.get(at) == Some(&b'/'));
                tokens.push(if at == pattern.len() { Token::Rest } else { Token::Dirs });
            }
            b'*' => {
                at += 1;
                tokens.push(Token::Many);
            }
            b'?' => {
                at += 1;
                tokens.push(Token::One);
            }
            b'[' => {
                let end = class_end(pattern, at);
                tokens.push(Token::Class(pattern[at..end].to_vec()));
                at = end;
            }
            byte => {
                // A backslash takes the next byte as it is; one at the end is refused before.
                at += usize::from(byte == b'\\' && at + 1 < pattern.len());
                push_text(&mut tokens, pattern[at]);
                at += 1;
            }
        }
    }
    tokens
}

fn push_text(tokens: &mut Vec<Token>, byte: u8) {
    match tokens.last_mut() {
        Some(Token::Text(text)) => text.push(byte),
        _ => tokens.push(Token::Text(vec![byte])),
    }
}

/// The end of a class that [`glob_match`] found well-formed.
fn class_end(pattern: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < pattern.len() && pattern[at] != b']' {
        at += if pattern[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(pattern.len())
}

fn matches(tokens: &[Token], path: &[u8]) -> bool {
    let Some((first, rest)) = tokens.split_first() else { return path.is_empty() };
    match first {
        Token::Text(text) => path.strip_prefix(&**text).is_some_and(|path| matches(rest, path)),
        Token::Rest => true,
        Token::One => one_char(path).is_some_and(|len| matches(rest, &path[len..])),
        Token::Class(class) => one_char(path).is_some_and(|len| {
            glob_match(class, &path[..len]).unwrap_or(false) && matches(rest, &path[len..])
        }),
        Token::Many => {
            let end = path.iter().position(|&b| b == b'/').unwrap_or(path.len());
            (0..=end).any(|skip| matches(rest, &path[skip..]))
        }
        Token::Dirs => {
            matches(rest, path)
                || (0..path.len()).filter(|&i| path[i] == b'/').any(|i| matches(rest, &path[i + 1..]))
        }
    }
}

/// The length of the first character, unless there is none or it is a slash.
fn one_char(path: &[u8]) -> Option<usize> {
    match *path.first()? {
        b'/' => None,
        byte if byte < 0x80 => Some(1),
        _ => (1..=path.len().min(4)).find(|&len| std::str::from_utf8(&path[..len]).is_ok()).or(Some(1)),
    }
}

/// Go's `filepath.Clean` for the patterns: `//`, `/./`, trailing slashes and inner `..` go.
fn clean(text: &str) -> String {
    let rooted = text.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], yes: &[&str], no: &[&str]) {
        let matcher = PatternMatcher::new(patterns).unwrap();
        for path in yes {
            assert!(matcher.matches(path.as_bytes()), "{patterns:?} should match {path}");
        }
        for path in no {
            assert!(!matcher.matches(path.as_bytes()), "{patterns:?} should not match {path}");
        }
    }

    #[test]
    fn patterns() {
        check(&["*.log"], &["a.log", "a.log/x"], &["sub/a.log"]);
        check(&["**/*.log"], &["a.log", "sub/b.log", "sub/deep/d.log"], &["a.logs"]);
        check(&["sub/deep"], &["sub/deep", "sub/deep/d"], &["deep", "sub/deeper"]);
        check(&["/sub/"], &[], &["sub", "sub/x"]);
        check(&["s?b/*.txt", "[mn]ain.*"], &["sub/c.txt", "main.txt"], &["sub/deep/c.txt", "rain.txt"]);
        check(&["a/**/end"], &["a/end", "a/1/end", "a/1/2/end"], &["a/1/2/ends", "b/end"]);
        check(&["all/**"], &["all/one", "all/sub/two"], &["all", "allx"]);
        check(&["b**/z"], &["bird/z", "bird/x/z"], &["z", "bird/zz"]);
        check(&["**"], &["a", "a/b"], &[]);
        check(&["docs", "!docs/public"], &["docs/x"], &["docs/public", "docs/public/x", "y"]);
        check(&[r"\#hash", "a/../b//c"], &["#hash", "b/c"], &["a"]);
    }

    #[test]
    fn walking_gives_the_same_answer() {
        let matcher = PatternMatcher::new(&["lib/**", "!lib/*/keep", "docs", "!docs/p"]).unwrap();
        for path in ["lib/a/keep", "lib/a/drop", "lib/a/b/keep", "docs/p/x", "docs/q/x", "lib/keep"] {
            let mut parents = ParentMatches::default();
            for (at, _) in path.match_indices('/') {
                parents = matcher.visit(&path.as_bytes()[..at], &parents).1;
            }
            assert_eq!(
                matcher.visit(path.as_bytes(), &parents).0,
                matcher.matches(path.as_bytes()),
                "{path}"
            );
        }
    }

    #[test]
    fn what_may_lie_below() {
        let matcher = PatternMatcher::new(&["src/*/x", "doc/**/y", "!a/b/c"]).unwrap();
        for (dir, want) in [("src", true), ("src/q", true), ("other", false), ("doc/1/2/3", true)] {
            assert_eq!(matcher.may_match_below(dir.as_bytes()), want, "{dir}");
        }
        assert!(matcher.may_take_back_below(b"a/b"));
        assert!(!matcher.may_take_back_below(b"a/x"));
    }

    #[test]
    fn rejects_malformed_patterns() {
        assert_eq!(PatternMatcher::new(&["!"]).unwrap_err(), PatternError::BareExclusion);
        assert!(PatternMatcher::new(&["a[b"]).is_err());
    }
}
