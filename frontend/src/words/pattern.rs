//! The patterns of `${v#…}`, `${v%…}` and `${v/…}`: literals, `?` and `*`, none of which crosses a line end.

use thiserror::Error;

/// A backslash before a character that needs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("invalid escape '\\{}'", .0.unwrap_or(char::REPLACEMENT_CHARACTER))]
pub(crate) struct PatternError(Option<char>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    Any,
    Star,
}

impl Token {
    fn accepts(self, ch: char) -> bool {
        match self {
            Self::Literal(literal) => literal == ch,
            Self::Any | Self::Star => ch != '\n',
        }
    }
}

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
    greedy: bool,
}

impl Pattern {
    /// Compiles; `greedy` makes `*` take as much as it can.
    pub(crate) fn new(pattern: &str, greedy: bool) -> Result<Self, PatternError> {
        let mut tokens = Vec::new();
        let mut chars = pattern.strip_prefix('\u{feff}').unwrap_or(pattern).chars();
        while let Some(ch) = chars.next() {
            let token = match ch {
                '*' if tokens.last() == Some(&Token::Star) => continue,
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(escaped),
                    other => return Err(PatternError(other)),
                },
                literal => Token::Literal(literal),
            };
            tokens.push(token);
        }
        Ok(Self { tokens, greedy })
    }

    /// The value without what matches at its start.
    pub(crate) fn trim_start(&self, value: &str) -> String {
        let chars: Vec<char> = value.chars().collect();
        let end = self.match_at(&self.tokens, &chars).unwrap_or(0);
        chars[end..].iter().collect()
    }

    /// The value without what matches at its end.
    pub(crate) fn trim_end(&self, value: &str) -> String {
        let chars: Vec<char> = value.chars().rev().collect();
        let tokens: Vec<Token> = self.tokens.iter().rev().copied().collect();
        let end = self.match_at(&tokens, &chars).unwrap_or(0);
        chars[end..].iter().rev().collect()
    }

    /// The value with the first match replaced; the replacement is literal.
    pub(crate) fn replace_first(&self, value: &str, replacement: &str) -> String {
        let chars: Vec<char> = value.chars().collect();
        match self.find(&chars, 0) {
            None => value.to_owned(),
            Some((start, end)) => {
                let (head, tail) = (chars[..start].iter(), chars[end..].iter());
                head.copied().chain(replacement.chars()).chain(tail.copied()).collect()
            }
        }
    }

    /// The value with all matches replaced; `$` in the replacement is a template as in Go's `Regexp.Expand`.
    ///
    /// Nothing if the result would be longer than `limit` bytes.
    pub(crate) fn replace_all(&self, value: &str, replacement: &str, limit: usize) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let (mut from, mut copied) = (0, 0);
        while from <= chars.len() {
            let Some((start, end)) = self.find(&chars, from) else { break };
            out.extend(&chars[copied..start]);
            // An empty match right after another one does not count.
            if end > copied || start == 0 {
                let matched: String = chars[start..end].iter().collect();
                expand_template(replacement, &matched, &mut out);
            }
            if out.len() > limit {
                return None;
            }
            copied = end;
            from = if end > from { end } else { from + 1 };
        }
        out.extend(&chars[copied..]);
        Some(out)
    }

    /// The leftmost match at or after `from`.
    fn find(&self, chars: &[char], from: usize) -> Option<(usize, usize)> {
        (from..=chars.len()).find_map(|start| {
            let end = self.match_at(&self.tokens, &chars[start..])?;
            Some((start, start + end))
        })
    }

    /// The end of the match at the start of `chars`: the longest for greedy patterns, else the shortest.
    ///
    /// Simulates all ways at once, so the time is at most the product of the lengths.
    fn match_at(&self, tokens: &[Token], chars: &[char]) -> Option<usize> {
        let mut states = vec![false; tokens.len() + 1];
        states[0] = true;
        close(tokens, &mut states);
        let mut best = None;
        for at in 0..=chars.len() {
            if states[tokens.len()] {
                best = Some(at);
                if !self.greedy {
                    break;
                }
            }
            let Some(&ch) = chars.get(at) else { break };
            let mut next = vec![false; tokens.len() + 1];
            let mut alive = false;
            for (index, &token) in tokens.iter().enumerate() {
                if states[index] && token.accepts(ch) {
                    next[index + usize::from(token != Token::Star)] = true;
                    alive = true;
                }
            }
            if !alive {
                break;
            }
            close(tokens, &mut next);
            states = next;
        }
        best
    }
}

/// A star may match nothing.
fn close(tokens: &[Token], states: &mut [bool]) {
    for (index, &token) in tokens.iter().enumerate() {
        if states[index] && token == Token::Star {
            states[index + 1] = true;
        }
    }
}

/// Go's template: `$$` is a dollar, `$0` and `${0}` the match, other names are empty.
fn expand_template(template: &str, matched: &str, out: &mut String) {
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let braced = rest.strip_prefix('{');
        let body = braced.unwrap_or(rest);
        let len = body.find(|ch: char| ch != '_' && !ch.is_alphanumeric()).unwrap_or(body.len());
        let closed = braced.is_none() || body[len..].starts_with('}');
        if len == 0 || !closed {
            out.push('$');
            continue;
        }
        if body[..len].bytes().all(|b| b == b'0') {
            out.push_str(matched);
        }
        rest = &body[len + usize::from(braced.is_some())..];
    }
    out.push_str(rest);
}
