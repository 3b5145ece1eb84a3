//! The answer to a subrequest.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::quote::escape_html;

/// An answer in both forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For people: `result.txt`.
    pub text: String,
    /// For programs: `result.json`.
    pub json: String,
    /// The version of the subrequest.
    pub version: &'static str,
    /// Lint's exit status, 0 or 1; others have none.
    pub status: Option<u8>,
}

/// JSON as Go's `MarshalIndent` writes it: two blanks, and escapes for what HTML would mistake.
pub(super) fn json(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"  "));
    value.serialize(&mut serializer).expect("plain data serialises");
    escape_html(&String::from_utf8(bytes).expect("JSON is UTF-8"))
}
