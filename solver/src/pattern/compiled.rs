//! One pattern, compiled to a small automaton.

/// A pattern that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `!` without a pattern.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneMark,
    /// Unclosed brackets, an empty or backward range, or a backslash at the end.
    #[error("syntax error in pattern `{0}`")]
    Syntax(String),
}

/// What a state of the automaton accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `**` at the end: everything.
    Rest,
    /// `**` or `**/` before something: nothing, or anything that ends in a slash.
    Dirs,
    /// `[…]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// The cleaned pattern without `!`.
    pub(super) text: String,
    /// Whether it had `!`.
    pub(super) invert: bool,
    kind: Kind,
}

/// How to match; most patterns need no automaton.
#[derive(Debug, Clone)]
enum Kind {
    /// The text itself.
    Exact,
    /// Text before a final `**`.
    Prefix(String),
    /// Text after a leading `**`.
    Suffix(String),
    Tokens(Vec<Token>),
}

impl Pattern {
    /// Compiles one pattern; a blank one is none.
    pub(super) fn new(text: &str) -> Result<Option<Self>, PatternError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let cleaned = clean(text);
        let (invert, body) = match cleaned.strip_prefix('!') {
            Some("") => return Err(PatternError::LoneMark),
            Some(rest) => (true, rest),
            None => (false, cleaned.as_str()),
        };
        let tokens = tokens(body).ok_or_else(|| PatternError::Syntax(body.to_owned()))?;
        Ok(Some(Self { text: body.to_owned(), invert, kind: Kind::of(body, tokens) }))
    }

    /// Whether the pattern matches the whole path.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match &self.kind {
            Kind::Exact => path == self.text.as_bytes(),
            Kind::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            // `**/foo` matches `foo`, too.
            Kind::Suffix(suffix) => {
                path.ends_with(suffix.as_bytes()) || suffix.as_bytes().strip_prefix(b"/") == Some(path)
            }
            Kind::Tokens(tokens) => States::after(tokens, chars_of(path)).has(tokens.len()),
        }
    }

    /// Whether the pattern can match anything below a directory; may say yes in vain.
    pub(super) fn may_match_below(&self, dir: &[u8]) -> bool {
        let below = |text: &str| text.as_bytes().strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"));
        match &self.kind {
            Kind::Exact => below(&self.text),
            Kind::Prefix(prefix) => below(prefix) || dir.starts_with(prefix.as_bytes()),
            Kind::Suffix(_) => true,
            Kind::Tokens(tokens) => !States::after(tokens, chars_of(dir).chain(['/'])).is_empty(),
        }
    }
}

impl Kind {
    fn of(text: &str, tokens: Vec<Token>) -> Self {
        let literal = |tokens: &[Token]| tokens.iter().all(|token| matches!(token, Token::Literal(_)));
        if text.contains('\\') {
            return Self::Tokens(tokens);
        }
        match tokens.as_slice() {
            all if literal(all) => Self::Exact,
            [head @ .., Token::Rest] if literal(head) => Self::Prefix(text[..text.len() - 2].to_owned()),
            [Token::Dirs, tail @ ..] if literal(tail) => Self::Suffix(text[2..].to_owned()),
            _ => Self::Tokens(tokens),
        }
    }
}

/// The live states of the automaton; one bit per token and one for the end.
struct States<'a> {
    tokens: &'a [Token],
    bits: Vec<u64>,
}

impl<'a> States<'a> {
    /// Runs over a text; ends early once nothing can match any more.
    fn after(tokens: &'a [Token], text: impl Iterator<Item = char>) -> Self {
        let mut now = Self { tokens, bits: vec![0; tokens.len() / 64 + 1] };
        let mut next = Self { tokens, bits: now.bits.clone() };
        now.enter(0);
        for ch in text {
            next.bits.fill(0);
            now.step(ch, &mut next);
            std::mem::swap(&mut now.bits, &mut next.bits);
            if now.is_empty() {
                break;
            }
        }
        now
    }

    fn has(&self, state: usize) -> bool {
        self.bits[state / 64] >> (state % 64) & 1 == 1
    }

    fn is_empty(&self) -> bool {
        self.bits.iter().all(|&word| word == 0)
    }

    fn stay(&mut self, state: usize) {
        self.bits[state / 64] |= 1 << (state % 64);
    }

    /// Adds a state and those that follow it without a character.
    fn enter(&mut self, mut state: usize) {
        loop {
            self.stay(state);
            match self.tokens.get(state) {
                Some(Token::Star | Token::Rest | Token::Dirs) => state += 1,
                _ => return,
            }
        }
    }

    fn step(&self, ch: char, next: &mut Self) {
        for (index, &word) in self.bits.iter().enumerate() {
            let mut word = word;
            while word != 0 {
                let state = index * 64 + word.trailing_zeros() as usize;
                word &= word - 1;
                if let Some(token) = self.tokens.get(state) {
                    next.accept(token, state, ch);
                }
            }
        }
    }

    fn accept(&mut self, token: &Token, state: usize, ch: char) {
        match token {
            Token::Literal(literal) if *literal == ch => self.enter(state + 1),
            Token::Any if ch != '/' => self.enter(state + 1),
            Token::Star if ch != '/' => self.enter(state),
            Token::Rest => self.enter(state),
            Token::Dirs => {
                self.stay(state);
                if ch == '/' {
                    self.enter(state + 1);
                }
            }
            Token::Class { negated, ranges }
                if ranges.iter().any(|&(low, high)| low <= ch && ch <= high) != *negated =>
            {
                self.enter(state + 1);
            }
            _ => {}
        }
    }
}

/// The characters of a path; each byte that belongs to none is U+FFFD.
fn chars_of(path: &[u8]) -> impl Iterator<Item = char> {
    path.utf8_chunks().flat_map(|chunk| {
        chunk.valid().chars().chain(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER))
    })
}

/// The tokens of a pattern; `None` if it is malformed.
fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(ch) = chars.next() {
        tokens.push(match ch {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() { Token::Rest } else { Token::Dirs }
            }
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::Literal(chars.next()?),
            '[' => class(&mut chars)?,
            literal => Token::Literal(literal),
        });
    }
    Some(tokens)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// What follows an opening bracket, as Go's `filepath.Match` reads it.
fn class(chars: &mut Chars<'_>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        if low > high {
            return None;
        }
        ranges.push((low, high));
    }
    Some(Token::Class { negated, ranges })
}

fn class_char(chars: &mut Chars<'_>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        ch => Some(ch),
    }
}

/// The shortest path that means the same, as Go's `filepath.Clean`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|&last| last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}
