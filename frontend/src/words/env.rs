//! Where variables come from.

use std::collections::BTreeMap;

/// Variables by name.
pub trait Env {
    /// The value, or `None` when the variable is unset.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Env for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        Self::get(self, name).map(String::as_str)
    }
}

impl Env for [(String, String)] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Env for () {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }
}
