//! From a logical line to keyword, flags and arguments: what BuildKit's parser makes of it.

use crate::ast::Heredoc;
use crate::parse::grammar;
use crate::parse::keyword::known;
use crate::parse::problem::Problem;
use crate::quote::quote;
use crate::words::Lexer;

/// How deep ONBUILD may stand in ONBUILD before the rest is left alone; more than one is an error anyway.
const MAX_TRIGGERS: usize = 16;

/// A line taken apart, not yet typed.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub(super) keyword: String,
    pub(super) flags: Vec<String>,
    pub(super) args: Vec<String>,
    pub(super) json: bool,
    /// The logical line.
    pub(super) original: String,
    /// ONBUILD's instruction and its offset in the line.
    pub(super) trigger: Option<(usize, Box<Self>)>,
}

impl Statement {
    /// Takes a line apart.
    ///
    /// # Errors
    /// On ENV and LABEL without values, and on JSON arrays that hold something else than strings.
    pub(super) fn new(line: &str, escape: char) -> Result<Self, Problem> {
        Self::nested(line, escape, 0)
    }

    fn nested(line: &str, escape: char, depth: usize) -> Result<Self, Problem> {
        let indent = line.len() - line.trim_start().len();
        let trimmed = line.trim();
        let head = grammar::head(trimmed, escape);
        let rest = trimmed[head.rest..].trim();
        let mut statement =
            Self { keyword: head.keyword, flags: head.flags, original: line.to_owned(), ..Self::default() };
        match known(&statement.keyword) {
            "ENV" => statement.args = pairs(rest, "ENV", escape)?,
            "LABEL" => statement.args = pairs(rest, "LABEL", escape)?,
            "ARG" => statement.args = grammar::words(rest, escape),
            "EXPOSE" | "FROM" => statement.args = grammar::plain_words(rest),
            "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" => statement.args = text(rest),
            "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => statement.json_or(rest, text)?,
            "ADD" | "COPY" | "VOLUME" => statement.json_or(rest, grammar::plain_words)?,
            "HEALTHCHECK" => statement.healthcheck(rest)?,
            "ONBUILD" if rest.is_empty() || depth > MAX_TRIGGERS => {}
            "ONBUILD" => {
                // `rest` is a part of `line`: the difference of their ends is what was trimmed.
                let offset = indent
                    + head.rest
                    + (trimmed[head.rest..].len() - trimmed[head.rest..].trim_start().len());
                statement.trigger = Some((offset, Box::new(Self::nested(rest, escape, depth + 1)?)));
            }
            // BuildKit's parser leaves one empty argument to what it does not know.
            _ => statement.args.push(String::new()),
        }
        Ok(statement)
    }

    /// A JSON array of strings, or else what `otherwise` makes of the text.
    fn json_or(&mut self, rest: &str, otherwise: fn(&str) -> Vec<String>) -> Result<(), Problem> {
        match grammar::json_strings(rest) {
            Some(strings) => {
                self.json = true;
                self.args.extend(strings);
            }
            None if is_json_array(rest) => {
                return Err(Problem::new(
                    "when using JSON array syntax, arrays must be comprised of strings only",
                )
                .hint("put each element in double quotes"));
            }
            None => self.args.extend(otherwise(rest)),
        }
        Ok(())
    }

    /// A type, then a command in either form.
    fn healthcheck(&mut self, rest: &str) -> Result<(), Problem> {
        if rest.is_empty() {
            return Ok(());
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        self.args.push(rest[..end].to_owned());
        self.json_or(rest[end..].trim_start(), text)
    }

    /// Whether here-documents can follow: RUN, COPY and ADD, also as triggers, in other forms than JSON.
    fn takes_heredocs(&self) -> bool {
        let statement = match &self.trigger {
            Some((_, trigger)) if self.keyword.eq_ignore_ascii_case("onbuild") => trigger,
            _ => self,
        };
        !statement.json && matches!(known(&statement.keyword), "ADD" | "COPY" | "RUN")
    }

    /// The markers of here-documents in the line, their content still empty.
    ///
    /// # Errors
    /// On a delimiter that cannot be read.
    pub(super) fn markers(&self) -> Result<Vec<Heredoc>, Problem> {
        if !self.original.contains("<<") || !self.takes_heredocs() {
            return Ok(Vec::new());
        }
        let lexer = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lexer::new('\\') };
        // A line that is no proper words has no markers: its shell may know better.
        let words = lexer.split(&self.original, &()).unwrap_or_default();
        words.iter().map(|word| heredoc(word)).filter_map(Result::transpose).collect()
    }
}

/// Reads a word as a here-document's marker.
///
/// # Errors
/// On a delimiter with quotes that do not close.
pub(super) fn heredoc(word: &str) -> Result<Option<Heredoc>, Problem> {
    let Some(marker) = grammar::marker(word) else { return Ok(None) };
    let lexer = Lexer { skip_unset: true, ..Lexer::new('\\') };
    let split = |lexer: Lexer| {
        lexer.split(marker.delimiter, &()).map_err(|error| Problem::new(error.to_string()).about(word))
    };
    let [name] = split(lexer)?.try_into().unwrap_or_else(|_| [String::new()]);
    if name.is_empty() {
        return Ok(None);
    }
    let [raw] = split(Lexer { raw_quotes: true, ..lexer })?.try_into().map_err(|_| {
        Problem::new(format!(
            "internal lexing of heredoc produced inconsistent results: {}",
            marker.delimiter
        ))
    })?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(&name) == quotes(&raw);
    Ok(Some(Heredoc { name, fd: marker.fd, expand, chomp: marker.chomp, content: String::new() }))
}

/// The whole text as one argument, none when it is empty.
fn text(rest: &str) -> Vec<String> {
    if rest.is_empty() { Vec::new() } else { vec![rest.to_owned()] }
}

/// Whether the text is a JSON array of any kind. Deep nesting costs no stack here.
fn is_json_array(text: &str) -> bool {
    text.starts_with('[') && serde_json::from_str::<Vec<serde::de::IgnoredAny>>(text).is_ok()
}

/// Triples of key, value and separator; the first word decides between the two forms.
fn pairs(rest: &str, keyword: &str, escape: char) -> Result<Vec<String>, Problem> {
    let words = grammar::words(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let is_blank = |ch: char| matches!(ch, '\t' | '\x0B' | '\x0C' | '\r' | ' ');
        let (key, value) = rest.split_once(is_blank).ok_or_else(|| {
            let problem = Problem::new(format!("{keyword} must have two arguments")).about(rest);
            match rest.contains(['"', '\'']) {
                true => problem.hint("a quote has to end on the same line"),
                false => problem.hint(format!("write `{keyword} {rest}=value`")),
            }
        })?;
        return Ok(vec![key.to_owned(), value.trim_start_matches(is_blank).to_owned(), String::new()]);
    }
    let mut triples = Vec::with_capacity(words.len() * 3);
    for word in &words {
        let (key, value) = word.split_once('=').ok_or_else(|| {
            Problem::new(format!(
                "Syntax error - can't find = in {}. Must be of the form: name=value",
                quote(word)
            ))
            .about(word)
            .hint("a value with blanks needs quotes around it")
        })?;
        triples.extend([key.to_owned(), value.to_owned(), "=".to_owned()]);
    }
    Ok(triples)
}
