//! JSON on stdout.

use std::io;

use serde::Serialize;

use super::table::stdout;

/// Prints a value on lines for people.
pub(super) fn print(value: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_string_pretty(value)?;
    stdout(&format!("{}\n", harmless(&json)))
}

/// The same JSON with what a terminal may obey, or what turns a line around, as escapes: what others say is in it.
fn harmless(json: &str) -> String {
    let obeyed = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match obeyed(c) {
            true => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn what_a_terminal_may_obey_is_escaped() {
        let value = serde_json::json!({"name": "a\u{1b}[2J\u{9b}2J\u{202e}é"});
        let json = harmless(&value.to_string());
        assert_eq!(json, r#"{"name":"a\u001b[2J\u009b2J\u202eé"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
    }
}
