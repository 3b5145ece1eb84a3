//! The lexer: quotes, escapes, `$NAME` and `${NAME…}`.
//!
//! The rules are those of BuildKit's `frontend/dockerfile/shell`, surprises included: a default inside `${…}`
//! empties the word that is being split, and a byte-order mark at the start is dropped.

use std::borrow::Cow;
use std::collections::BTreeSet;

use thiserror::Error;

use crate::quote::quote;
use crate::words::Env;
use crate::words::pattern::{Pattern, PatternError};

/// How deep `${a:-${b:-…}}` may nest; without a bound the stack would be the bound.
const MAX_DEPTH: usize = 128;

/// The longest result: so much, and so many times the word. Without a bound, forty instructions like `ENV A=$A$A` fill
/// the memory; the kernel passes no variable above 128 KiB to a command.
const MAX_RESULT: (usize, usize) = (1 << 20, 16);

/// Why a word could not be expanded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("failed to process {}: {reason}", quote(.word))]
pub struct WordError {
    /// The word as written.
    pub word: String,
    /// What is wrong with it, in BuildKit's words.
    pub reason: String,
}

/// The result of expanding a word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expansion {
    /// The word with variables replaced and quotes removed.
    pub text: String,
    /// The variables that were set.
    pub matched: BTreeSet<String>,
    /// The variables that were not set.
    pub unmatched: BTreeSet<String>,
}

/// How to read words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lexer {
    /// The escape token: a backslash or a backtick.
    pub escape: char,
    /// Keep quotes in the result.
    pub raw_quotes: bool,
    /// Keep escape tokens in the result.
    pub raw_escapes: bool,
    /// Take quotes for ordinary characters.
    pub skip_quotes: bool,
    /// Leave `$NAME` as it is when it is not set.
    pub skip_unset: bool,
}

impl Lexer {
    /// A lexer that removes quotes and escapes and takes unset variables for empty.
    pub fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, skip_quotes: false, skip_unset: false }
    }

    /// Expands a word into one word, whatever blanks it gets (BuildKit's `ProcessWord` and `ProcessWordWithMatches`).
    ///
    /// # Errors
    /// On an open quote or brace, an unknown modifier or pattern, and on `${NAME:?text}` of an unset variable.
    pub fn expand(&self, word: &str, env: &(impl Env + ?Sized)) -> Result<Expansion, WordError> {
        let (expansion, error) = self.expand_noting(word, env);
        error.map_or(Ok(expansion), Err)
    }

    /// As [`Self::expand`], with the variables that were met also when it fails; lint reports them.
    pub fn expand_noting(&self, word: &str, env: &(impl Env + ?Sized)) -> (Expansion, Option<WordError>) {
        let mut run = Run::new(*self, word, env);
        // Most words have nothing to expand.
        if run.plain(None) == run.rest.len() {
            return (Expansion { text: run.rest.to_owned(), ..Expansion::default() }, None);
        }
        let (text, error) = match run.until(None, self.raw_escapes) {
            Ok((text, _)) => (text, None),
            Err(reason) => (String::new(), Some(failed(word, reason))),
        };
        (Expansion { text, matched: run.matched, unmatched: run.unmatched }, error)
    }

    /// Expands a word and splits the result at blanks outside quotes (BuildKit's `ProcessWords`).
    ///
    /// # Errors
    /// As [`Self::expand`].
    pub fn split(&self, word: &str, env: &(impl Env + ?Sized)) -> Result<Vec<String>, WordError> {
        let mut run = Run { splits: true, ..Run::new(*self, word, env) };
        run.until(None, self.raw_escapes).map(|(_, words)| words).map_err(|reason| failed(word, reason))
    }
}

fn failed(word: &str, reason: String) -> WordError {
    WordError { word: word.to_owned(), reason }
}

/// One pass over one word.
struct Run<'a, E: ?Sized> {
    lexer: Lexer,
    rest: &'a str,
    env: &'a E,
    raw_escapes: bool,
    /// Whether the words are wanted, or only the text.
    splits: bool,
    depth: usize,
    /// The longest result in bytes, at any depth.
    limit: usize,
    /// The word being split. Shared by all depths: the inner one empties it, as in BuildKit.
    buffer: String,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

/// The words of one depth.
#[derive(Default)]
struct Splitter {
    words: Vec<String>,
    in_word: bool,
}

impl Splitter {
    fn char(&mut self, buffer: &mut String, ch: char) {
        if !ch.is_whitespace() {
            buffer.push(ch);
            self.in_word = true;
        } else if self.in_word && !buffer.is_empty() {
            self.words.push(std::mem::take(buffer));
            self.in_word = false;
        }
    }

    fn raw(&mut self, buffer: &mut String, text: &str) {
        buffer.push_str(text);
        self.in_word = true;
    }

    fn finish(mut self, buffer: &mut String) -> Vec<String> {
        if !buffer.is_empty() {
            self.words.push(std::mem::take(buffer));
        }
        self.words
    }
}

impl<'a, E: Env + ?Sized> Run<'a, E> {
    fn new(lexer: Lexer, word: &'a str, env: &'a E) -> Self {
        Self {
            lexer,
            rest: word.strip_prefix('\u{feff}').unwrap_or(word),
            env,
            raw_escapes: lexer.raw_escapes,
            splits: false,
            depth: 0,
            limit: MAX_RESULT.0 + MAX_RESULT.1 * word.len(),
            buffer: String::new(),
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let ch = chars.next();
        self.rest = chars.as_str();
        ch
    }

    /// Reads up to `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), String> {
        if self.depth >= MAX_DEPTH {
            return Err(format!("substitutions nest deeper than {MAX_DEPTH}"));
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.scan(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        result
    }

    /// The length of what comes before anything that means something.
    fn plain(&self, stop: Option<char>) -> usize {
        let Lexer { escape, skip_quotes, .. } = self.lexer;
        let special = |ch| match ch {
            '$' => true,
            '\'' | '"' => !skip_quotes,
            '<' => self.splits,
            ch => ch == escape,
        };
        self.rest.find(|ch| special(ch) || Some(ch) == stop).unwrap_or(self.rest.len())
    }

    fn scan(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        let mut result = String::new();
        let mut words = Splitter::default();
        self.buffer.clear();
        loop {
            let (plain, rest) = self.rest.split_at(self.plain(stop));
            self.rest = rest;
            self.text(&mut words, &mut result, plain);
            let Some(ch) = self.peek() else { break };
            self.within_limit(&result)?;
            if Some(ch) == stop {
                self.next();
                return Ok((result, words.finish(&mut self.buffer)));
            }
            match ch {
                '$' => {
                    let value = self.dollar()?;
                    self.text(&mut words, &mut result, &value);
                    continue;
                }
                '\'' | '"' if !self.lexer.skip_quotes => {
                    let text = if ch == '"' { self.double_quoted()?.into() } else { self.single_quoted()? };
                    self.raw_text(&mut words, &mut result, &text);
                    continue;
                }
                '<' => {
                    let text = self.heredoc_marker();
                    self.raw_text(&mut words, &mut result, &text);
                    continue;
                }
                _ => self.next(),
            };
            if self.raw_escapes {
                self.raw_text(&mut words, &mut result, ch.encode_utf8(&mut [0; 4]));
            }
            let Some(escaped) = self.next() else { break };
            self.raw_text(&mut words, &mut result, escaped.encode_utf8(&mut [0; 4]));
        }
        self.within_limit(&result)?;
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok((result, words.finish(&mut self.buffer))),
        }
    }

    /// Adds text that ends words at its blanks.
    fn text(&mut self, words: &mut Splitter, result: &mut String, text: &str) {
        result.push_str(text);
        if self.splits {
            text.chars().for_each(|ch| words.char(&mut self.buffer, ch));
        }
    }

    /// Adds text that belongs to one word.
    fn raw_text(&mut self, words: &mut Splitter, result: &mut String, text: &str) {
        result.push_str(text);
        if self.splits {
            words.raw(&mut self.buffer, text);
        }
    }

    fn within_limit(&self, result: &str) -> Result<(), String> {
        if result.len() <= self.limit { Ok(()) } else { Err(self.too_long()) }
    }

    fn too_long(&self) -> String {
        format!("the result is longer than {} bytes", self.limit)
    }

    /// `<<` with the blanks after it stays together, so that `<< EOF` splits into one word.
    fn heredoc_marker(&mut self) -> String {
        self.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.next();
        let end = self.rest.find(|ch| !matches!(ch, '\t' | '\r' | ' ')).unwrap_or(self.rest.len());
        let (blanks, rest) = self.rest.split_at(end);
        self.rest = rest;
        format!("<<{blanks}")
    }

    fn single_quoted(&mut self) -> Result<Cow<'a, str>, String> {
        self.next();
        let end = self.rest.find('\'').ok_or_else(|| {
            "unexpected end of statement while looking for matching single-quote".to_owned()
        })?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(if self.lexer.raw_quotes { format!("'{text}'").into() } else { text.into() })
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        self.next();
        if self.lexer.raw_quotes {
            result.push('"');
        }
        loop {
            let escape = self.lexer.escape;
            let special = |ch| matches!(ch, '"' | '$') || ch == escape;
            let (plain, rest) = self.rest.split_at(self.rest.find(special).unwrap_or(self.rest.len()));
            self.rest = rest;
            result.push_str(plain);
            self.within_limit(&result)?;
            match self.peek() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching double-quote".to_owned()
                    );
                }
                Some('"') => {
                    self.next();
                    if self.lexer.raw_quotes {
                        result.push('"');
                    }
                    return Ok(result);
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(_) => self.quoted_escape(&mut result),
            }
        }
    }

    /// Within double quotes only the quote, the dollar and the escape token itself can be escaped.
    fn quoted_escape(&mut self, result: &mut String) {
        self.next();
        let escape = self.lexer.escape;
        if self.raw_escapes {
            result.push(escape);
        }
        match self.peek() {
            None => {}
            Some(next) if next == '"' || next == '$' || next == escape => {
                self.next();
                result.push(next);
            }
            Some(_) => result.push(escape),
        }
    }

    fn dollar(&mut self) -> Result<Cow<'a, str>, String> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.value(name) {
                None if self.lexer.skip_unset => format!("${name}").into(),
                value => value.unwrap_or_default().into(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(match self.value(name) {
                None if self.lexer.skip_unset => format!("${{{name}}}").into(),
                value => value.unwrap_or_default().into(),
            }),
            Some(':') => {
                let modifier = self.next();
                self.modified(name, modifier, true)
            }
            Some('/') => self.replaced(name).map(Cow::Owned),
            modifier => self.modified(name, modifier, false),
        }
    }

    /// `${NAME:-word}` and its relatives.
    fn modified(&mut self, name: &str, modifier: Option<char>, colon: bool) -> Result<Cow<'a, str>, String> {
        let shown =
            format!("{}{}", if colon { ":" } else { "" }, modifier.unwrap_or(char::REPLACEMENT_CHARACTER));
        let unsupported = || format!("unsupported modifier ({shown}) in substitution");
        let trims = matches!(modifier, Some('#' | '%'));
        if trims && colon || !colon && !matches!(modifier, Some('+' | '-' | '?' | '#' | '%')) {
            return Err(unsupported());
        }
        let word = self.until(Some('}'), trims).map_err(|reason| self.open_brace(reason, '}'))?.0;
        let value = self.value(name);
        if self.lexer.skip_unset && value.is_none() {
            return Ok(format!("${{{name}{shown}{word}}}").into());
        }
        let unset = value.is_none_or(|value| colon && value.is_empty());
        let set = value.unwrap_or_default();
        match modifier {
            Some('-') => Ok(if unset { word.into() } else { set.into() }),
            Some('+') => Ok(if unset { "".into() } else { word.into() }),
            Some('?') if unset => {
                let state = if value.is_none() { "unset" } else { "empty" };
                let reason = if word.is_empty() { format!("is not allowed to be {state}") } else { word };
                Err(format!("{name}: {reason}"))
            }
            Some('?') => Ok(set.into()),
            Some(trim @ ('#' | '%')) => trimmed(&word, set, trim).map(Cow::Owned),
            _ => Err(unsupported()),
        }
    }

    /// `${NAME/pattern/text}` and `${NAME//pattern/text}`.
    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.until(Some('/'), true).map_err(|reason| self.open_brace(reason, '/'))?.0;
        let text = self.until(Some('}'), true).map_err(|reason| self.open_brace(reason, '}'))?.0;
        let value = self.value(name);
        if self.lexer.skip_unset && value.is_none() {
            return Ok(format!("${{{name}/{pattern}/{text}}}"));
        }
        let compiled = Pattern::new(&pattern, true).map_err(|error| invalid_pattern(&pattern, &error))?;
        let value = value.unwrap_or_default();
        if !all {
            return Ok(compiled.replace_first(value, &text));
        }
        compiled.replace_all(value, &text, self.limit).ok_or_else(|| self.too_long())
    }

    /// An error at the very end of the word is about the brace that was never closed.
    fn open_brace(&self, reason: String, missing: char) -> String {
        match (self.rest.is_empty(), missing) {
            (false, _) => reason,
            (true, '/') => "syntax error: missing '/' in ${}".to_owned(),
            (true, _) => "syntax error: missing '}'".to_owned(),
        }
    }

    /// A name, a positional parameter's digits, or one special parameter; empty when there is none.
    fn name(&mut self) -> &'a str {
        let len = |accept: fn(char) -> bool| self.rest.find(|ch| !accept(ch)).unwrap_or(self.rest.len());
        let end = match self.peek() {
            Some(ch) if is_digit(ch) => len(is_digit),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => len(|ch| ch == '_' || is_letter(ch) || is_digit(ch)),
        };
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name
    }

    fn value(&mut self, name: &str) -> Option<&'a str> {
        let env = self.env;
        let value = env.get(name);
        let seen = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        if !seen.contains(name) {
            seen.insert(name.to_owned());
        }
        value
    }
}

/// `#` trims the shortest match at the start, `##` the longest; `%` and `%%` do so at the end.
fn trimmed(word: &str, value: &str, trim: char) -> Result<String, String> {
    let longest = word.strip_prefix(trim);
    let pattern = Pattern::new(longest.unwrap_or(word), longest.is_some())
        .map_err(|error| invalid_pattern(longest.unwrap_or(word), &error))?;
    Ok(if trim == '#' { pattern.trim_start(value) } else { pattern.trim_end(value) })
}

fn invalid_pattern(pattern: &str, error: &PatternError) -> String {
    format!("invalid pattern ({pattern}) in substitution: {error}")
}

fn is_digit(ch: char) -> bool {
    ch.is_ascii_digit() || !ch.is_ascii() && pest::unicode::DECIMAL_NUMBER(ch)
}

fn is_letter(ch: char) -> bool {
    ch.is_ascii_alphabetic() || !ch.is_ascii() && pest::unicode::LETTER(ch)
}
