//! The pest grammar and the plain data that its parse trees become.

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

/// Splits the head off a line that has no blanks at its start.
pub(super) fn head(line: &str, escape: char) -> Head {
    let rule = if escape == '`' { Rule::head_backtick } else { Rule::head_backslash };
    let Some(pair) = parse(rule, line) else {
        return Head { keyword: String::new(), flags: Vec::new(), rest: 0 };
    };
    let mut rest = pair.as_span().end();
    let mut pairs = pair.into_inner();
    let keyword = pairs.next().map_or("", |pair| pair.as_str()).to_owned();
    let mut flags = Vec::new();
    for pair in pairs {
        let end = pair.as_span().end();
        let flag = unquoted(pair);
        // What follows a lone `--` is arguments, whatever it looks like.
        if flag == "--" {
            rest = end;
            break;
        }
        flags.push(flag);
    }
    Head { keyword, flags, rest }
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

/// Splits at blanks outside quotes; quotes and escapes stay.
pub(super) fn words(text: &str, escape: char) -> Vec<String> {
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
    let Some(pair) = parse(Rule::plain_words, text) else { return Vec::new() };
    let is_word = |pair: &Pair<'_, Rule>| pair.as_rule() == Rule::plain_word;
    pair.into_inner().filter(is_word).map(|word| word.as_str().to_owned()).collect()
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

/// Reads a word as a here-document's marker.
pub(super) fn marker(word: &str) -> Option<Marker<'_>> {
    if !word.contains("<<") {
        return None;
    }
    let mut pairs = parse(Rule::heredoc, word)?.into_inner();
    let fd = pairs.next()?.as_str();
    let chomp = pairs.next()?.as_str() == "-";
    let delimiter = pairs.next()?.as_str();
    // Go's ParseUint gives its largest value for more digits than fit, and zero for none.
    let fd = if fd.is_empty() { 0 } else { fd.parse().unwrap_or(u64::MAX) };
    (!delimiter.is_empty()).then_some(Marker { fd, chomp, delimiter })
}
