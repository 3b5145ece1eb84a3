//! Go's `path.Match` (package `path`, function Match): `*`, `?`, `[…]`, `\`; none of them crosses a slash.

/// A pattern with an unclosed or empty bracket, or a backslash at its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern `{0}`")]
pub struct BadPattern(pub String);

/// Whether `name` as a whole matches `pattern`.
///
/// # Errors
/// A malformed pattern; where the mismatch is found before the flaw, the answer may be `false` instead, as in Go.
pub fn glob_match(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    matches(pattern, name).map_err(|Flaw| BadPattern(String::from_utf8_lossy(pattern).into_owned()))
}

struct Flaw;

fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, Flaw> {
    let (mut p, mut n) = (0, 0);
    // Where to go on when the text after the last star does not fit: the star's end, and the next name position.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            while p < pattern.len() && pattern[p] == b'*' {
                p += 1;
            }
            retry = Some((p, n));
            continue;
        }
        if p == pattern.len() && n == name.len() {
            return Ok(true);
        }
        if p < pattern.len()
            && let Some((next_p, next_n)) = step(pattern, p, name, n)?
        {
            (p, n) = (next_p, next_n);
            continue;
        }
        match retry {
            Some((after, at)) if at < name.len() && name[at] != b'/' => {
                (p, n) = (after, at + 1);
                retry = Some((after, at + 1));
            }
            _ => return check_rest(pattern, p),
        }
    }
}

/// A mismatch: the rest of the pattern is still checked for syntax, as Go does since 1.16.
fn check_rest(pattern: &[u8], mut p: usize) -> Result<bool, Flaw> {
    while p < pattern.len() {
        match pattern[p] {
            b'\\' if p + 1 == pattern.len() => return Err(Flaw),
            b'\\' => p += 2,
            b'[' => p = class(pattern, p, None)?.0,
            _ => p += 1,
        }
    }
    Ok(false)
}

/// Matches one element that is no star; `None` when it does not fit.
fn step(pattern: &[u8], p: usize, name: &[u8], n: usize) -> Result<Option<(usize, usize)>, Flaw> {
    let current = char_at(name, n);
    match pattern[p] {
        b'?' => Ok(current.filter(|c| c.0 != '/' as u32).map(|c| (p + 1, n + c.1))),
        b'[' => {
            let (end, hit) = class(pattern, p, current.map(|c| c.0))?;
            Ok(current.filter(|_| hit).map(|c| (end, n + c.1)))
        }
        b'\\' if p + 1 == pattern.len() => Err(Flaw),
        b'\\' => Ok((name.get(n) == Some(&pattern[p + 1])).then_some((p + 2, n + 1))),
        byte => Ok((name.get(n) == Some(&byte)).then_some((p + 1, n + 1))),
    }
}

/// Reads the class at `p` (a `[`); returns where it ends and whether `c` is in it.
fn class(pattern: &[u8], p: usize, c: Option<u32>) -> Result<(usize, bool), Flaw> {
    let mut at = p + 1;
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let (mut hit, mut ranges) = (false, 0);
    loop {
        if pattern.get(at) == Some(&b']') && ranges > 0 {
            return Ok((at + 1, c.is_some() && hit != negated));
        }
        let (low, next) = class_char(pattern, at)?;
        let (high, next) =
            if pattern.get(next) == Some(&b'-') { class_char(pattern, next + 1)? } else { (low, next) };
        hit |= c.is_some_and(|c| (low..=high).contains(&c));
        ranges += 1;
        at = next;
    }
}

fn class_char(pattern: &[u8], mut at: usize) -> Result<(u32, usize), Flaw> {
    match pattern.get(at) {
        None | Some(b'-' | b']') => return Err(Flaw),
        Some(b'\\') => at += 1,
        Some(_) => {}
    }
    let (c, len) = char_at(pattern, at).ok_or(Flaw)?;
    // A class that ends with the pattern is never closed.
    if at + len >= pattern.len() { Err(Flaw) } else { Ok((c, at + len)) }
}

/// The character at `at` and its length; a byte that is no UTF-8 counts as U+FFFD of length 1, as in Go.
fn char_at(text: &[u8], at: usize) -> Option<(u32, usize)> {
    let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
    if rest[0] < 0x80 {
        return Some((rest[0].into(), 1));
    }
    let head = &rest[..rest.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default(),
    };
    Some(valid.chars().next().map_or((0xFFFD, 1), |c| (c as u32, c.len_utf8())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go's own table of `path/match_test.go`, facts only: pattern, name, result (`None`: syntax error).
    const CASES: &[(&str, &str, Option<bool>)] = &[
        ("abc", "abc", Some(true)),
        ("*", "abc", Some(true)),
        ("*c", "abc", Some(true)),
        ("a*", "a", Some(true)),
        ("a*", "ab/c", Some(false)),
        ("a*/b", "abc/b", Some(true)),
        ("a*/b", "a/c/b", Some(false)),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Some(false)),
        ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
        ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
        ("ab[c]", "abc", Some(true)),
        ("ab[b-d]", "abc", Some(true)),
        ("ab[e-g]", "abc", Some(false)),
        ("ab[^e-g]", "abc", Some(true)),
        ("a\\*b", "a*b", Some(true)),
        ("a\\*b", "ab", Some(false)),
        ("a?b", "a☺b", Some(true)),
        ("a[^a]b", "a☺b", Some(true)),
        ("a???b", "a☺b", Some(false)),
        ("[a-ζ]*", "α", Some(true)),
        ("*[a-ζ]", "A", Some(false)),
        ("a?b", "a/b", Some(false)),
        ("a*b", "a/b", Some(false)),
        ("[\\]a]", "]", Some(true)),
        ("[\\-]", "-", Some(true)),
        ("[x\\-]", "z", Some(false)),
        ("[]a]", "]", None),
        ("[-]", "-", None),
        ("[x-]", "x", None),
        ("[", "a", None),
        ("[^bc", "a", None),
        ("a[", "a", None),
        ("a[", "ab", None),
        ("a[", "x", None),
        ("*x", "xxx", Some(true)),
        ("**", "a/b", Some(false)),
        ("src/**", "src/a", Some(true)),
    ];

    #[test]
    fn agrees_with_go() {
        for (pattern, name, want) in CASES {
            assert_eq!(glob_match(pattern.as_bytes(), name.as_bytes()).ok(), *want, "{pattern} on {name}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_match_as_one_character() {
        assert_eq!(glob_match(b"a?b", b"a\xffb"), Ok(true));
        assert_eq!(glob_match(b"a\xffb", b"a\xffb"), Ok(true));
    }
}
