//! Texts of fields, one to a line, in blocks that empty lines part: dpkg's status, the heads of Python's metadata.

use std::borrow::Cow;

/// The fields of one block.
#[derive(Debug, Default)]
pub(super) struct Stanza<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Stanza<'a> {
    /// The first line of a field, trimmed; names are told apart as they are written.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }
}

/// The text that bytes are, whatever is no UTF-8 replaced.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The blocks of a text. Lines that begin with a blank go on with a field's value and are left out, and so is what is no field.
pub(super) fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut stanza = Stanza::default();
        for line in lines.by_ref() {
            if line.trim_end().is_empty() {
                if stanza.fields.is_empty() {
                    continue;
                }
                return Some(stanza);
            }
            if line.starts_with([' ', '\t']) {
                continue;
            }
            if let Some((name, value)) = line.split_once(':') {
                stanza.fields.push((name, value.trim()));
            }
        }
        (!stanza.fields.is_empty()).then_some(stanza)
    })
}
