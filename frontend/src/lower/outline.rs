//! What a target takes from outside: ARGs, secrets and SSH agents (`--call outline`).

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::ArgDefinition;
use crate::lower::stage::{StageId, Stages};
use crate::span::Lines;
use crate::subrequest::{Outline, OutlineArg, OutlineMount};

/// What is noted of a stage while it is lowered.
#[derive(Debug, Clone, Default)]
pub(super) struct Capture {
    pub(super) args: BTreeMap<String, ArgInfo>,
    pub(super) used: BTreeSet<String>,
    secrets: BTreeMap<String, (bool, Lines)>,
    ssh: BTreeMap<String, (bool, Lines)>,
}

/// An ARG's definition and value.
#[derive(Debug, Clone)]
pub(super) struct ArgInfo {
    pub(super) value: String,
    /// The ARGs that its default reads.
    pub(super) deps: BTreeSet<String>,
    description: String,
    lines: Lines,
}

impl ArgInfo {
    /// A definition whose value is not known yet.
    pub(super) fn new(definition: &ArgDefinition, lines: Lines) -> Self {
        let description = definition.doc.clone().unwrap_or_default();
        Self { value: String::new(), deps: BTreeSet::new(), description, lines }
    }
}

impl Capture {
    /// Notes a secret; the first mount of it counts.
    pub(super) fn note_secret(&mut self, id: &str, required: bool, lines: Lines) {
        self.secrets.entry(id.to_owned()).or_insert((required, lines));
    }

    /// Notes an SSH agent; the first mount of it counts.
    pub(super) fn note_ssh(&mut self, id: &str, required: bool, lines: Lines) {
        self.ssh.entry(id.to_owned()).or_insert((required, lines));
    }

    /// The ARGs that are used, also by defaults of others.
    fn all_used(&self) -> BTreeSet<&String> {
        let mut used = BTreeSet::new();
        let mut todo: Vec<&String> = self.used.iter().collect();
        while let Some(key) = todo.pop() {
            if used.insert(key) {
                todo.extend(self.args.get(key).into_iter().flat_map(|info| &info.deps));
            }
        }
        used
    }
}

/// The outline of a target: what it, its bases and the stages that it copies from take.
pub(super) fn of(stages: &Stages<'_>, target: StageId) -> Outline {
    let mut outline = Outline::default();
    if let Some(ast) = stages[target].ast {
        outline.name = ast.name.clone().unwrap_or_default();
        outline.description = ast.doc.clone().unwrap_or_default();
    }
    let (mut todo, mut seen) = (vec![target], BTreeSet::new());
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        add(&mut outline, &stages[id].outline);
        // A stack: what is pushed last comes first, and bases come before other stages.
        todo.extend(stages[id].deps.iter().rev().map(|(dep, _)| *dep));
        todo.extend(stages[id].base);
    }
    outline.args.sort_by_key(|arg| arg.lines.start);
    outline.secrets.sort_by_key(|mount| mount.lines.start);
    outline.ssh.sort_by_key(|mount| mount.lines.start);
    outline
}

/// Adds what one stage takes; names that are there already stay as they are.
fn add(outline: &mut Outline, capture: &Capture) {
    for key in capture.all_used() {
        let Some(info) = capture.args.get(key) else { continue };
        if !outline.args.iter().any(|arg| arg.name == *key) {
            outline.args.push(OutlineArg {
                name: key.clone(),
                value: info.value.clone(),
                description: info.description.clone(),
                lines: info.lines,
            });
        }
    }
    for (list, noted) in [(&mut outline.secrets, &capture.secrets), (&mut outline.ssh, &capture.ssh)] {
        for (name, &(required, lines)) in noted {
            if !list.iter().any(|mount| mount.name == *name) {
                list.push(OutlineMount { name: name.clone(), required, lines });
            }
        }
    }
}
