//! Licenses as SPDX has them: an expression of its own names, or a name made for the text that there is.

use sha2::{Digest as _, Sha256};
use spdx::{Expression, ParseMode};

/// Longer texts are cut, in bytes.
const LONGEST: usize = 200;

/// What a document says of a license.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum License {
    /// An expression of SPDX's names.
    Expression(String),
    /// Something else, under a name of the document's own.
    Other {
        /// `LicenseRef-…`.
        id: String,
        /// What the metadata say.
        text: String,
    },
}

impl License {
    /// What a package's metadata say.
    pub(super) fn new(text: &str) -> Self {
        // Older names still are names; one that another document made is none.
        let mode = ParseMode { allow_deprecated: true, ..ParseMode::STRICT };
        if !text.contains("Ref-") && Expression::parse_mode(text, mode).is_ok() {
            return Self::Expression(text.to_owned());
        }
        let end =
            text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= LONGEST).last();
        let text = &text[..end.unwrap_or(0)];
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let stem: String = text.chars().take(40).map(plain).collect();
        let mark = hex::encode(&Sha256::digest(text)[..4]);
        Self::Other { id: format!("LicenseRef-{}-{mark}", stem.trim_matches('-')), text: text.to_owned() }
    }

    /// How the document names it.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Expression(id) | Self::Other { id, .. } => id,
        }
    }
}
