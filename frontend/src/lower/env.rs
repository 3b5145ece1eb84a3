//! The environment of a stage: variables in the order in which they were last set.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::words::Env;

/// Variables in the order of their last assignment, which is the order that commands get them in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EnvList {
    /// Where each variable stands in the order.
    places: HashMap<Arc<str>, u64>,
    order: BTreeMap<u64, Variable>,
    next: u64,
    /// What [`Self::entries`] gave, while it holds.
    entries: Option<Arc<[Arc<str>]>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    key: Arc<str>,
    /// `NAME=value`
    entry: Arc<str>,
}

impl Variable {
    fn value(&self) -> &str {
        &self.entry[self.key.len() + 1..]
    }
}

impl EnvList {
    /// Sets a variable and moves it to the end.
    pub(crate) fn set(&mut self, key: &str, value: impl AsRef<str>) {
        let entry = [key, "=", value.as_ref()].concat().into();
        let known = self.places.get_mut(key).and_then(|place| {
            let at = std::mem::replace(place, self.next);
            self.order.remove(&at)
        });
        let key = known.map(|variable| variable.key).unwrap_or_else(|| {
            let key = Arc::from(key);
            self.places.insert(Arc::clone(&key), self.next);
            key
        });
        self.order.insert(self.next, Variable { key, entry });
        self.next += 1;
        self.entries = None;
    }

    /// Unsets a variable.
    pub(crate) fn remove(&mut self, key: &str) {
        if let Some(at) = self.places.remove(key) {
            self.order.remove(&at);
            self.entries = None;
        }
    }

    /// The names in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.order.values().map(|variable| &*variable.key)
    }

    /// `NAME=value`, in order. Commands share the list while nothing is set, and always the entries.
    pub(crate) fn entries(&mut self) -> Arc<[Arc<str>]> {
        let list = || self.order.values().map(|variable| Arc::clone(&variable.entry)).collect();
        Arc::clone(self.entries.get_or_insert_with(list))
    }
}

impl Env for EnvList {
    fn get(&self, name: &str) -> Option<&str> {
        self.order.get(self.places.get(name)?).map(Variable::value)
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
        let entries = env.entries();
        assert_eq!(entries.iter().map(|entry| &**entry).collect::<Vec<_>>(), ["B=2", "A=3"]);
        assert!(Arc::ptr_eq(&entries, &env.entries()));
        env.set("B", "");
        assert_eq!(env.get("B"), Some(""));
        assert_eq!(env.entries().iter().map(|entry| &**entry).collect::<Vec<_>>(), ["A=3", "B="]);
    }
}
