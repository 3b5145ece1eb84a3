//! The attributes of a cache at a service.

use std::collections::BTreeMap;
use std::time::Duration;

use frontend::number::{boolean, duration};

/// An attribute is missing or malformed. In BuildKit's words where it has some.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::daemon) struct WrongAttr(pub(in crate::daemon) String);

/// What a client says of a cache, and the daemon's environment.
pub(in crate::daemon) struct Attrs<'a> {
    /// What the client says.
    pub(in crate::daemon) attrs: &'a BTreeMap<String, String>,
    /// A variable of the daemon's environment.
    pub(in crate::daemon) env: &'a dyn Fn(&str) -> Option<String>,
}

impl Attrs<'_> {
    /// An attribute that is there and not empty.
    pub(in crate::daemon) fn get(&self, name: &str) -> Option<String> {
        self.attrs.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// An attribute, or a variable in its place.
    pub(in crate::daemon) fn or_env(&self, name: &str, variable: &str) -> Option<String> {
        self.attrs.get(name).cloned().or_else(|| (self.env)(variable))
    }

    /// An attribute that may be empty, or what stands in for it.
    pub(in crate::daemon) fn or(&self, name: &str, default: &str) -> String {
        self.attrs.get(name).map_or(default, String::as_str).to_owned()
    }

    /// The names of a cache, of which the first is read.
    pub(in crate::daemon) fn names(&self) -> Vec<String> {
        self.or("name", "buildkit").split(';').map(str::to_owned).collect()
    }

    /// A yes or no; what is neither is no.
    pub(in crate::daemon) fn flag(&self, name: &str) -> bool {
        self.attrs.get(name).and_then(|value| boolean(value)).unwrap_or(false)
    }

    /// A span of time as Go writes it; what is none counts as not said.
    pub(in crate::daemon) fn duration(&self, name: &str) -> Option<Duration> {
        self.attrs.get(name).and_then(|value| duration(value))
    }

    /// A number above zero.
    ///
    /// # Errors
    /// Anything else.
    pub(in crate::daemon) fn positive(&self, name: &'static str) -> Result<Option<u32>, WrongAttr> {
        let Some(value) = self.attrs.get(name) else { return Ok(None) };
        match value.parse() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(WrongAttr(format!("{name} must be a positive integer"))),
        }
    }
}
