//! Scopes: parts of a store that are trusted differently.

use std::fmt;
use std::str::FromStr;

/// The longest name: with a key it has to fit a registry's tag.
const MAX: usize = 40;

/// The name of a part of a store. Small letters, digits, `-`, `_` and `.`, the first a letter or a digit, 40 at most.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(String);

/// A name that cannot be a scope's.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` cannot be a scope: up to 40 small letters, digits, `-`, `_` and `.`, beginning with a letter or a digit"
)]
pub struct InvalidScope(String);

impl Scope {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Scope {
    /// `default`.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(name: &str) -> Result<Self, InvalidScope> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = name.bytes().all(|c| plain(c) || matches!(c, b'-' | b'_' | b'.'));
        match name.bytes().next() {
            Some(first) if plain(first) && fits && name.len() <= MAX => Ok(Self(name.to_owned())),
            _ => Err(InvalidScope(name.to_owned())),
        }
    }
}
