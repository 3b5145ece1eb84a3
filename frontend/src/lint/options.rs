//! What to check: `# check=skip=…;error=…;experimental=…`.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::quote::quote;

/// Options of the linter, from a directive, a comment or the build's `BUILDKIT_DOCKERFILE_CHECK`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// Skip all rules that are not experimental.
    pub skip_all: bool,
    /// Rules to skip, by name.
    pub skip: BTreeSet<String>,
    /// Run all experimental rules.
    pub experimental_all: bool,
    /// Experimental rules to run, by name.
    pub experimental: BTreeSet<String>,
    /// Whether findings fail the build.
    pub error: bool,
}

/// What is wrong with check options.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckOptionsError {
    /// An option that is none, or has no value.
    #[error("invalid check option {}", quote(.0))]
    Invalid(String),
    /// `error` with something that is no boolean.
    #[error("failed to parse check option {}: strconv.ParseBool: parsing {}: invalid syntax", quote(.option), quote(.value))]
    NotBoolean {
        /// The whole option.
        option: String,
        /// Its value.
        value: String,
    },
}

impl CheckOptions {
    /// Reads options.
    ///
    /// # Errors
    /// On unknown options and malformed values.
    pub fn parse(text: &str) -> Result<Self, CheckOptionsError> {
        let mut options = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            let (key, value) =
                part.split_once('=').ok_or_else(|| CheckOptionsError::Invalid(part.to_owned()))?;
            let value = value.trim();
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect();
            match key.trim() {
                "skip" if value == "all" => options.skip_all = true,
                "skip" => options.skip = names(),
                "experimental" if value == "all" => options.experimental_all = true,
                "experimental" => options.experimental = names(),
                "error" => {
                    options.error = crate::number::boolean(value).ok_or_else(|| {
                        CheckOptionsError::NotBoolean { option: part.to_owned(), value: value.to_owned() }
                    })?;
                }
                other => return Err(CheckOptionsError::Invalid(other.to_owned())),
            }
        }
        Ok(options)
    }

    /// Whether these options let a rule run.
    pub(crate) fn skips(&self, name: &str) -> bool {
        self.skip_all || self.skip.contains(name)
    }

    /// Whether these options ask for an experimental rule.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.experimental_all || self.experimental.contains(name)
    }
}
