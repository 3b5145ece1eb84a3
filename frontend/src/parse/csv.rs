//! One line of comma-separated values, as Go's `encoding/csv` reads it.

use thiserror::Error;

/// A quote where CSV does not have them, or the end of the line before its partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CsvError {
    /// No text at all.
    #[error("EOF")]
    Empty,
    /// A quote inside a field that does not start with one.
    #[error("parse error on line 1, column {0}: bare \" in non-quoted-field")]
    BareQuote(usize),
    /// Text after a closing quote, or no closing quote.
    #[error("parse error on line 1, column {0}: extraneous or missing \" in quoted-field")]
    Quote(usize),
}

/// Splits a line into fields.
///
/// # Errors
/// On misplaced quotes and on an empty line.
pub fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let rest = &line[at..];
        if !rest.starts_with('"') {
            let end = rest.find(',').unwrap_or(rest.len());
            if let Some(quote) = rest[..end].find('"') {
                return Err(CsvError::BareQuote(at + quote + 1));
            }
            fields.push(rest[..end].to_owned());
            at += end + 1;
        } else {
            let (field, len) = quoted(rest).map_err(|column| CsvError::Quote(at + column + 1))?;
            fields.push(field);
            at += len + 1;
        }
        if at > line.len() {
            return Ok(fields);
        }
    }
}

/// A quoted field at the start of `text` and the bytes it takes, or the offset of what is wrong.
fn quoted(text: &str) -> Result<(String, usize), usize> {
    let mut field = String::new();
    let mut at = 1;
    loop {
        let end = at + text[at..].find('"').ok_or(at)?;
        field.push_str(&text[at..end]);
        match text.as_bytes().get(end + 1) {
            None | Some(b',') => return Ok((field, end + 1)),
            Some(b'"') => {
                field.push('"');
                at = end + 2;
            }
            Some(_) => return Err(end),
        }
    }
}
