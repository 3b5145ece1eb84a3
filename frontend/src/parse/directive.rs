//! Parser directives: `# escape=`, `# syntax=`, `# check=`.

use crate::ast::Directive;
use crate::diagnostic::{Diagnostic, Phase};
use crate::parse::grammar;
use crate::span::{Lines, Span};

const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// What a line is to a directive parser.
enum Found {
    Directive(Directive),
    /// A name that came before.
    Again(String),
    /// Anything else: no directives any more.
    Nothing,
}

/// Reads directives until the first line that is none.
#[derive(Debug, Default)]
struct Scanner {
    seen: Vec<String>,
    done: bool,
}

impl Scanner {
    fn line(&mut self, text: &str, sign: &str, line: u32) -> Found {
        if self.done {
            return Found::Nothing;
        }
        let found = text.strip_prefix(sign).and_then(grammar::directive);
        let name =
            found.map(|(name, _)| name.to_ascii_lowercase()).filter(|name| NAMES.contains(&name.as_str()));
        let (Some(name), Some((_, value))) = (name, found) else {
            self.done = true;
            return Found::Nothing;
        };
        if self.seen.contains(&name) {
            return Found::Again(name);
        }
        self.seen.push(name.clone());
        Found::Directive(Directive { name, value: value.to_owned(), line })
    }
}

/// The directives as the parser takes them, with the escape token.
#[derive(Debug)]
pub(super) struct DirectiveReader {
    scanner: Scanner,
    pub(super) escape: char,
    pub(super) errors: Vec<Diagnostic>,
}

impl Default for DirectiveReader {
    fn default() -> Self {
        Self { scanner: Scanner::default(), escape: '\\', errors: Vec::new() }
    }
}

impl DirectiveReader {
    /// Takes the first line of an instruction or a comment; says whether it is a directive.
    pub(super) fn line(&mut self, text: &str, line: u32, span: Span) -> bool {
        match self.scanner.line(text, "#", line) {
            Found::Nothing => false,
            Found::Again(name) => {
                self.error(again(&name), line, span, "remove one of them");
                false
            }
            Found::Directive(directive) => {
                let bad_escape =
                    directive.name == "escape" && !matches!(directive.value.as_str(), "`" | "\\");
                if bad_escape {
                    let message =
                        format!("invalid escape token '{}' does not match ` or \\", directive.value);
                    self.error(message, line, span, "the escape token is a backslash or a backtick");
                } else if directive.name == "escape" {
                    self.escape = directive.value.chars().next().unwrap_or('\\');
                }
                !bad_escape
            }
        }
    }

    /// BuildKit names the line before, as it has not counted this one yet.
    fn error(&mut self, message: String, line: u32, span: Span, hint: &str) {
        let error =
            Diagnostic::error(Phase::Parser, message).at(Lines::single(line - 1)).mark(span).hint(hint);
        self.errors.push(error);
    }
}

fn again(name: &str) -> String {
    format!("only one {name} parser directive can be used")
}

/// The directives at the very top of a file, and what ends them if it is an error; values are not looked at.
pub(super) fn list(text: &str) -> (Vec<Directive>, Option<String>) {
    let (mut scanner, mut list) = (Scanner::default(), Vec::new());
    for (line, number) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().zip(1..) {
        match scanner.line(line, "#", number) {
            Found::Directive(directive) => list.push(directive),
            Found::Again(name) => return (list, Some(again(&name))),
            Found::Nothing => break,
        }
    }
    (list, None)
}

/// `# syntax=`, in comments of either sign or as JSON, after a shebang or not.
pub(super) fn syntax(text: &str) -> Option<Directive> {
    let (text, skipped) = body(text);
    scan(text, "syntax", "#", skipped)
        .or_else(|| scan(text, "syntax", "//", skipped))
        .or_else(|| json(text, "syntax", skipped))
}

/// `# check=`, after a shebang or not.
pub(super) fn check(text: &str) -> Option<Directive> {
    let (text, skipped) = body(text);
    scan(text, "check", "#", skipped)
}

/// The directive that a comment of an instruction holds, without its sign.
pub(super) fn in_comment(comment: &str) -> Option<Directive> {
    // Most comments are none: do not bother the grammar with them.
    if !comment.contains('=') {
        return None;
    }
    match Scanner::default().line(comment, "", 0) {
        Found::Directive(directive) => Some(directive),
        _ => None,
    }
}

/// The text after a byte-order mark and a shebang line, and how many lines were skipped.
fn body(text: &str) -> (&str, u32) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.starts_with("#!") {
        return (text, 0);
    }
    (text.split_once('\n').map_or("", |(_, rest)| rest), 1)
}

fn scan(text: &str, name: &str, sign: &str, skipped: u32) -> Option<Directive> {
    let mut scanner = Scanner::default();
    for (line, number) in text.lines().zip(skipped + 1..) {
        match scanner.line(line, sign, number) {
            Found::Directive(directive) if directive.name == name => return Some(directive),
            Found::Directive(_) => {}
            Found::Again(_) | Found::Nothing => return None,
        }
    }
    None
}

fn json(text: &str, name: &str, skipped: u32) -> Option<Directive> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = object.get(name)?.as_str()?.to_owned();
    Some(Directive { name: name.to_owned(), value, line: skipped })
}
