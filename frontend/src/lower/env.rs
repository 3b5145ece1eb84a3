//! The environment of a stage: variables in the order in which they were last set.

use std::collections::{BTreeMap, HashMap};

use crate::words::Env;

/// Variables in the order of their last assignment, which is the order that commands get them in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EnvList {
    values: HashMap<String, (u64, String)>,
    order: BTreeMap<u64, String>,
    next: u64,
}

impl EnvList {
    /// Sets a variable and moves it to the end.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) {
        if let Some((at, _)) = self.values.insert(key.to_owned(), (self.next, value.into())) {
            self.order.remove(&at);
        }
        self.order.insert(self.next, key.to_owned());
        self.next += 1;
    }

    /// Unsets a variable.
    pub(crate) fn remove(&mut self, key: &str) {
        if let Some((at, _)) = self.values.remove(key) {
            self.order.remove(&at);
        }
    }

    /// The names in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.order.values().map(String::as_str)
    }

    /// `NAME=value`, in order.
    pub(crate) fn to_strings(&self) -> Vec<String> {
        self.keys().map(|key| format!("{key}={}", self.get(key).unwrap_or(""))).collect()
    }
}

impl Env for EnvList {
    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(_, value)| value.as_str())
    }
}

/// Splits `NAME=value`; without `=` the value is empty.
pub(crate) fn split(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_again_moves_to_the_end() {
        let mut env = EnvList::default();
        for (key, value) in [("A", "1"), ("B", "2"), ("A", "3"), ("C", "4")] {
            env.set(key, value);
        }
        env.remove("C");
        assert_eq!(env.to_strings(), ["B=2", "A=3"]);
    }
}
