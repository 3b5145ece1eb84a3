//! What a file says of its variables, for who explains why a step ran again. Nothing of it counts for a step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use solver::{Digest, Variable};

use crate::lower::outline::Capture;
use crate::words::{Env, Lexer};

/// Variables as vertices take them.
pub(crate) type Noted = Arc<[Arc<Variable>]>;

/// The ARGs and ENVs of a stage so far; those of its base image are not among them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables {
    known: BTreeMap<String, Arc<Variable>>,
    /// What [`Self::all`] gave, while it holds.
    all: Option<Noted>,
}

/// Where a variable comes from.
#[derive(Debug)]
pub(crate) struct Definition<'a> {
    /// An ARG, and no ENV.
    pub(crate) arg: bool,
    /// What it is.
    pub(crate) value: &'a str,
    /// What the file says it is.
    pub(crate) text: &'a str,
    /// The variables that that was expanded with.
    pub(crate) from: BTreeSet<String>,
}

impl Variables {
    /// Notes a variable, in place of what had its name.
    pub(crate) fn set(&mut self, name: &str, definition: Definition<'_>) {
        self.known.insert(name.to_owned(), variable(name, definition));
        self.all = None;
    }

    /// All of them, as a command sees them; commands share the list while nothing is set.
    pub(crate) fn all(&mut self) -> Noted {
        let list = || self.known.values().cloned().collect();
        Arc::clone(self.all.get_or_insert_with(list))
    }

    /// Those of `names`.
    pub(crate) fn of<'n>(&self, names: impl IntoIterator<Item = &'n String>) -> Noted {
        names.into_iter().filter_map(|name| self.known.get(name)).cloned().collect()
    }
}

/// The global ARGs `names`, and those that they are made of.
pub(super) fn globals(names: &BTreeSet<String>, values: &impl Env, outline: &Capture) -> Noted {
    let (mut todo, mut seen) = (Vec::from_iter(names), BTreeMap::new());
    while let Some(name) = todo.pop() {
        if seen.contains_key(name) {
            continue;
        }
        let known = outline.args.get(name);
        let from = known.map_or_else(BTreeSet::new, |known| known.deps.clone());
        let value = values.get(name).unwrap_or_default();
        seen.insert(name, variable(name, Definition { arg: true, value, text: "", from }));
        todo.extend(known.into_iter().flat_map(|known| &known.deps));
    }
    seen.into_values().collect()
}

/// The names of variables that a text is expanded with.
pub(super) fn used(lexer: &Lexer, text: &str, env: &impl Env) -> BTreeSet<String> {
    if !text.contains('$') {
        return BTreeSet::new();
    }
    lexer.expand(text, env).map(|expansion| expansion.matched).unwrap_or_default()
}

fn variable(name: &str, definition: Definition<'_>) -> Arc<Variable> {
    let Definition { arg, value, text, from } = definition;
    let (value, text) = (Digest::of(value.as_bytes()), Digest::of(text.as_bytes()));
    Arc::new(Variable { name: name.to_owned(), arg, value, text, from: from.into_iter().collect() })
}
