//! Quoting as Go's `%q` and `encoding/json` do it, for messages and keys that are compared.

use std::fmt::Write as _;

/// JSON with escapes for what HTML would mistake, as Go's `encoding/json` writes it.
pub fn escape_html(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for ch in json.chars() {
        match ch {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(escaped, "\\u{:04x}", ch as u32).expect("a string takes it")
            }
            ch => escaped.push(ch),
        }
    }
    escaped
}

/// The text in double quotes, with escapes for quotes, backslashes and what does not print.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for ch in text.chars() {
        match ch {
            '"' | '\\' => out.extend(['\\', ch]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            ' ' => out.push(' '),
            _ if (ch as u32) < 0x20 || ch == '\u{7f}' => {
                write!(out, "\\x{:02x}", ch as u32).expect("a string takes it")
            }
            // `escape_debug` knows what prints; it also escapes single quotes and marks, which Go leaves alone.
            _ if ch == '\'' || !ch.escape_debug().to_string().starts_with("\\u") => out.push(ch),
            _ if (ch as u32) < 0x1_0000 => write!(out, "\\u{:04x}", ch as u32).expect("a string takes it"),
            _ => write!(out, "\\U{:08x}", ch as u32).expect("a string takes it"),
        }
    }
    out.push('"');
    out
}
