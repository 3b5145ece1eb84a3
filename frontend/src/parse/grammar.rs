//! The parts of a line as plain data. What has quotes and escapes is read by the pest grammar; what is only split at
//! blanks is not worth its token queue.

use pest::Parser;
use pest::iterators::Pair;

/// The generated parser, in a module of its own: what pest generates has no docs.
mod generated {
    #[derive(pest_derive::Parser)]
    #[grammar = "parse/dockerfile.pest"]
    pub(super) struct Dockerfile;
}

use generated::{Dockerfile, Rule};

/// The keyword and the flags of a logical line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) keyword: String,
    /// Quotes and escapes removed.
    pub(super) flags: Vec<String>,
    /// The offset where the arguments start.
    pub(super) rest: usize,
}

/// A here-document's marker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Marker<'a> {
    pub(super) fd: u64,
    pub(super) chomp: bool,
    /// The delimiter with its quotes.
    pub(super) delimiter: &'a str,
}

fn parse(rule: Rule, text: &str) -> Option<Pair<'_, Rule>> {
    Dockerfile::parse(rule, text).ok()?.next()
}

/// The name and the value of a directive; `text` is what follows the comment sign.
pub(super) fn directive(text: &str) -> Option<(&str, &str)> {
    let mut pairs = parse(Rule::directive, text)?.into_inner();
    let (name, value) = (pairs.next()?.as_str(), pairs.next()?.as_str());
    Some((name, value.trim_end_matches(['\t', '\n', '\x0C', '\r', ' '])))
}

/// What separates the parts of a line.
const BLANKS: [char; 5] = [' ', '\t', '\x0B', '\x0C', '\r'];

/// The part up to the first blank.
fn up_to_blank(text: &str) -> &str {
    &text[..text.find(BLANKS).unwrap_or(text.len())]
}

/// Splits the head off a line that has no blanks at its start.
pub(super) fn head(line: &str, escape: char) -> Head {
    let keyword = up_to_blank(line);
    let after_blanks = |at: usize| line.len() - line[at..].trim_start_matches(BLANKS).len();
    let mut head = Head { keyword: keyword.to_owned(), flags: Vec::new(), rest: after_blanks(keyword.len()) };
    while line[head.rest..].starts_with("--") {
        let (flag, len) = flag(&line[head.rest..], escape);
        head.rest += len;
        // What follows a lone `--` is arguments, whatever it looks like.
        if flag == "--" {
            break;
        }
        head.flags.push(flag);
        head.rest = after_blanks(head.rest);
    }
    head
}

/// The flag that a text starts with, quotes and escapes removed, and its length as written.
fn flag(text: &str, escape: char) -> (String, usize) {
    let plain = up_to_blank(text);
    if !plain.contains(['"', '\'', escape]) {
        return (plain.to_owned(), plain.len());
    }
    let rule = if escape == '`' { Rule::flag_backtick } else { Rule::flag_backslash };
    parse(rule, text).map_or((String::new(), text.len()), |pair| {
        let len = pair.as_span().end();
        (unquoted(pair), len)
    })
}

/// The text of a flag without quotes and escapes.
fn unquoted(flag: Pair<'_, Rule>) -> String {
    let mut text = String::new();
    for pair in flag.into_inner().flatten() {
        match pair.as_rule() {
            Rule::flag_text_backslash
            | Rule::flag_text_backtick
            | Rule::flag_in_double_backslash
            | Rule::flag_in_double_backtick
            | Rule::flag_in_single_backslash
            | Rule::flag_in_single_backtick
            | Rule::escaped => text.push_str(pair.as_str()),
            _ => {}
        }
    }
    text
}

/// Splits at white space outside quotes; quotes and escapes stay.
pub(super) fn words(text: &str, escape: char) -> Vec<String> {
    if !text.contains(['"', '\'', escape]) {
        return text.split_whitespace().map(str::to_owned).collect();
    }
    let rule = if escape == '`' { Rule::words_backtick } else { Rule::words_backslash };
    let Some(pair) = parse(rule, text) else { return Vec::new() };
    let is_word =
        |pair: &Pair<'_, Rule>| matches!(pair.as_rule(), Rule::word_backslash | Rule::word_backtick);
    pair.into_inner().filter(is_word).map(|word| word.as_str().to_owned()).collect()
}

/// Splits at every blank; no text is no words.
pub(super) fn plain_words(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    let mut rest = text;
    let mut words = Vec::new();
    loop {
        let word = up_to_blank(rest);
        words.push(word.to_owned());
        if word.len() == rest.len() {
            return words;
        }
        rest = rest[word.len()..].trim_start_matches(BLANKS);
    }
}

/// The strings of a JSON array that holds nothing else.
pub(super) fn json_strings(text: &str) -> Option<Vec<String>> {
    // A failed parse costs pest more than a successful one: it gathers what it had hoped for.
    if !text.starts_with('[') {
        return None;
    }
    let pair = parse(Rule::json_strings, text)?;
    let is_string = |pair: &Pair<'_, Rule>| pair.as_rule() == Rule::json_string;
    pair.into_inner().filter(is_string).map(json_string).collect()
}

/// Decodes a string, unless it holds a bare control character; surrogates without a partner become U+FFFD, as in Go.
fn json_string(string: Pair<'_, Rule>) -> Option<String> {
    let mut text = String::new();
    let mut units: Vec<u16> = Vec::new();
    for pair in string.into_inner() {
        if pair.as_rule() == Rule::json_unicode {
            units.extend(u16::from_str_radix(&pair.as_str()[2..], 16));
            continue;
        }
        flush(&mut units, &mut text);
        match pair.as_str() {
            "\\b" => text.push('\u{8}'),
            "\\f" => text.push('\u{c}'),
            "\\n" => text.push('\n'),
            "\\r" => text.push('\r'),
            "\\t" => text.push('\t'),
            escape if pair.as_rule() == Rule::json_escape => text.push_str(&escape[1..]),
            plain if plain.contains(|ch: char| ch < ' ') => return None,
            plain => text.push_str(plain),
        }
    }
    flush(&mut units, &mut text);
    Some(text)
}

fn flush(units: &mut Vec<u16>, text: &mut String) {
    text.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
}

/// Reads a word as a here-document's marker: `3<<-EOT`.
pub(super) fn marker(word: &str) -> Option<Marker<'_>> {
    let after_fd = word.trim_start_matches(|ch: char| ch.is_ascii_digit());
    let fd = &word[..word.len() - after_fd.len()];
    let after_sign = after_fd.strip_prefix("<<")?;
    let after_chomp = after_sign.strip_prefix('-').unwrap_or(after_sign);
    let delimiter = after_chomp.trim_start_matches(['\t', '\n', '\x0C', '\r', ' ']);
    // Go's ParseUint gives its largest value for more digits than fit, and zero for none.
    let fd = if fd.is_empty() { 0 } else { fd.parse().unwrap_or(u64::MAX) };
    let named = !delimiter.is_empty() && !delimiter.contains('<');
    named.then_some(Marker { fd, chomp: after_sign.len() > after_chomp.len(), delimiter })
}
