//! Why steps ran: what they were keyed on, compared with what the build before was keyed on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use solver::{Digest, Key, LayerId, Selection};

use super::account::{Account, Course, Input, Noted, Step, What};
use super::alignment::align;
use crate::explanation::{Cause, Outcome};

/// Where what is not in accounts is looked up.
pub(super) trait Memory {
    /// How what `selections` take of a tree differs from what they took of another; `None` when one of the trees is gone.
    fn differences(&self, old: &Digest, new: &Digest, selections: &[Selection]) -> Option<Vec<Cause>>;

    /// Whether and how the result of what ran was removed, later than `since`, in milliseconds since 1970.
    fn evicted(&self, course: &Course, since: Option<u64>) -> Option<Cause>;
}

/// A shared cache that was to be looked into.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct Asked {
    /// What it is called.
    pub name: String,
    /// Why it could not be read.
    pub error: Option<String>,
    /// It has something to go by under these keys.
    pub found: HashSet<Key>,
    /// What is wrong with what it has under these keys.
    pub refused: HashMap<Key, String>,
    /// Layers of it that could not be had, and why.
    pub lost: HashMap<LayerId, String>,
}

/// Why each of the courses ran. Nothing for what did not.
pub(super) fn causes(comparison: &Comparison<'_>) -> Vec<Vec<Cause>> {
    let courses = comparison.courses;
    courses.iter().map(|course| comparison.of(course)).collect()
}

/// A build beside the one before.
pub(super) struct Comparison<'a> {
    before: Option<&'a Account>,
    /// When the project was last built here, in milliseconds since 1970.
    since: Option<u64>,
    now: &'a Account,
    /// By step: which of those before it was.
    was: Vec<Option<usize>>,
    courses: &'a [Course],
    asked: &'a [Asked],
    memory: &'a dyn Memory,
}

impl<'a> Comparison<'a> {
    /// `now` is what the build was keyed on, `before` what the one before was, and `since` when the latest one here ended.
    pub(super) fn new(
        (before, since): (Option<&'a Account>, Option<u64>),
        now: &'a Account,
        courses: &'a [Course],
        asked: &'a [Asked],
        memory: &'a dyn Memory,
    ) -> Self {
        let was = align(before.map_or(&[], |before| &before.steps), &now.steps);
        Self { before, since, now, was, courses, asked, memory }
    }

    /// Why one of the courses ran; nothing where it did not.
    pub(super) fn of(&self, course: &Course) -> Vec<Cause> {
        let Some(step) = course.step.filter(|_| course.outcome.is_execution()) else { return Vec::new() };
        let Some(new) = self.now.steps.get(step) else { return Vec::new() };
        let old = self.was.get(step).copied().flatten();
        self.of_step(course, old.and_then(|old| self.before?.steps.get(old)), new)
    }

    fn of_step(&self, course: &Course, old: Option<&Step>, new: &Step) -> Vec<Cause> {
        if course.forced {
            return vec![Cause::NoCache { flag: None }];
        }
        let refused = self.refused(course);
        if !refused.is_empty() {
            return refused;
        }
        // What went before the build that this one is compared with may have been made again since.
        if let Some(evicted) = self.memory.evicted(course, self.since) {
            return vec![evicted];
        }
        if !course.lost.is_empty() {
            return self.gone(course);
        }
        let Some(old) = old else {
            return match (self.asked.is_empty(), self.before.is_some()) {
                (_, true) => vec![Cause::NewStep],
                (false, false) => self.absent(course),
                (true, false) => vec![Cause::FirstBuild],
            };
        };
        let mut own = of_op(old, new);
        let (of_inputs, follows) = self.of_inputs(course, old, new);
        for cause in of_inputs {
            if !own.contains(&cause) {
                own.push(cause);
            }
        }
        if !own.is_empty() {
            return own;
        }
        if !follows.is_empty() {
            return follows;
        }
        let forced = |i: &&usize| self.courses[**i].forced && self.courses[**i].outcome.is_execution();
        if let Some(&step) = course.inputs.iter().find(forced) {
            return vec![Cause::Follows { step }];
        }
        if old.op != new.op {
            return vec![Cause::Setting { name: "environment".to_owned() }];
        }
        match (old.finished, self.asked.is_empty()) {
            (false, _) => vec![Cause::Unfinished],
            (true, false) => self.absent(course),
            (true, true) if old.imported => vec![Cause::NotAsked],
            (true, true) => self.gone(course),
        }
    }

    /// Why a result is gone that was here: nothing else is known to have changed.
    fn gone(&self, course: &Course) -> Vec<Cause> {
        vec![self.memory.evicted(course, None).unwrap_or(Cause::Lost)]
    }

    fn absent(&self, course: &Course) -> Vec<Cause> {
        let absent = |asked: &Asked| Cause::Absent { cache: asked.name.clone(), error: asked.error.clone() };
        let has = |asked: &Asked| course.definition.is_some_and(|key| asked.found.contains(&key));
        let ran = |step: &usize| self.courses[*step].outcome.is_execution();
        match course.inputs.iter().copied().find(ran) {
            // What is there was made on something else than what that step gave.
            Some(step) if self.asked.iter().any(has) => vec![Cause::Follows { step }],
            _ => self.asked.iter().map(absent).collect(),
        }
    }

    /// The caches that had its result, but not so that it could be used.
    fn refused(&self, course: &Course) -> Vec<Cause> {
        let keys = || [course.key, course.definition].into_iter().flatten();
        let reason = |asked: &Asked| {
            // A record whose layers were found to be gone was one to go by.
            let of_layer = course.lost.iter().find_map(|layer| asked.lost.get(layer));
            let of_record =
                || keys().find_map(|key| asked.refused.get(&key)).filter(|_| course.lost.is_empty());
            let reason = of_layer.or_else(of_record)?.clone();
            Some(Cause::Refused { cache: asked.name.clone(), reason })
        };
        self.asked.iter().filter_map(reason).collect()
    }

    /// What is different about the inputs: from outside, and of other steps.
    fn of_inputs(&self, course: &Course, old: &Step, new: &Step) -> (Vec<Cause>, Vec<Cause>) {
        let (mut own, mut follows) = (Vec::new(), Vec::new());
        let mut former: Vec<&Input> = old.inputs.iter().collect();
        for (input, &below) in new.inputs.iter().zip(&course.inputs) {
            let place = former.iter().position(|old| old.role == input.role);
            let old_input = place.map(|place| former.remove(place));
            match &input.what {
                What::Step(_) => {
                    if !old_input.is_some_and(|old| self.is_same(old, input)) {
                        follows.push(Cause::Follows { step: below });
                    }
                }
                What::Directory(name) => own.extend(self.of_directory(name, old_input, input)),
                What::Source { .. } => own.extend(of_source(old_input, input, !old.is_written_as(new))),
                What::Document { .. } => own.extend(of_document(old_input, input, !old.is_written_as(new))),
            }
        }
        follows.dedup();
        // What did not run gave nothing new, as long as something else did.
        let ran = |cause: &Cause| match cause {
            Cause::Follows { step } => self.courses[*step].outcome.is_execution(),
            _ => true,
        };
        if follows.iter().any(ran) {
            follows.retain(ran);
        }
        (own, follows)
    }

    /// Whether an input gives the step what it gave before.
    fn is_same(&self, old: &Input, new: &Input) -> bool {
        if let (What::Step(Some(before)), What::Step(Some(now))) = (&old.what, &new.what)
            && before == now
            && (old.content == new.content || old.content.is_none() || new.content.is_none())
        {
            return true;
        }
        match (old.content, new.content) {
            (Some(before), Some(now)) if before == now => true,
            (Some(before), Some(now)) => new.selections.as_ref().is_some_and(|selections| {
                self.memory.differences(&before, &now, selections).is_some_and(|found| found.is_empty())
            }),
            _ => false,
        }
    }

    fn of_directory(&self, name: &str, old: Option<&Input>, new: &Input) -> Vec<Cause> {
        let unknown = || vec![Cause::Files { name: name.to_owned() }];
        // What another part of the directory has is told as why that part is another one.
        let alike = |old: &&Input| matches!(old.what, What::Directory(_)) && old.selections == new.selections;
        let Some(old) = old.filter(alike) else { return Vec::new() };
        let (Some(before), Some(now)) = (old.content, new.content) else { return unknown() };
        if before == now {
            return Vec::new();
        }
        let whole = [Selection { path: "/".to_owned(), ..Selection::default() }];
        let selections = new.selections.as_deref().unwrap_or(&whole);
        self.memory.differences(&before, &now, selections).unwrap_or_else(unknown)
    }
}

/// What is different about a document in the Dockerfile; of one that changed by variables alone, which unless the instruction is `rewritten`.
fn of_document(old: Option<&Input>, new: &Input, rewritten: bool) -> Vec<Cause> {
    let What::Document { name, data, variables } = &new.what else { return Vec::new() };
    // An instruction that had none is another one.
    let Some(What::Document { data: was, variables: had, .. }) = old.map(|old| &old.what) else {
        return Vec::new();
    };
    if was == data {
        return Vec::new();
    }
    let mut found = changed_variables(had, variables);
    if found.is_empty() || rewritten {
        found.push(Cause::Document { name: name.clone() });
    }
    found
}

/// What is different about a source; nothing where the `line` that names it is.
fn of_source(old: Option<&Input>, new: &Input, line: bool) -> Vec<Cause> {
    let What::Source { identifier, identity, revision, variables, .. } = &new.what else { return Vec::new() };
    let Some(Input {
        what: What::Source { identifier: named, identity: was, revision: had_revision, variables: had, .. },
        content,
        ..
    }) = old
    else {
        return Vec::new();
    };
    let same_content = content.is_some() && *content == new.content;
    if same_content || (named == identifier && was == identity) {
        return Vec::new();
    }
    let changed = changed_variables(had, variables);
    if named != identifier && !changed.is_empty() {
        return changed;
    }
    // The same commit may be another source, by the name that it goes by.
    let [had_revision, revision] = match had_revision == revision {
        true => [None, None],
        false => [had_revision.as_deref(), revision.as_deref()],
    };
    let identifier_now = identifier;
    let told = |identifier: &str, identity: Option<&Digest>, revision: Option<&str>| {
        let digest = revision.map_or_else(|| digest_of(identifier, identity), str::to_owned);
        match tag_of(named) == tag_of(identifier_now) {
            true => digest,
            false => format!("{} {digest}", name_of(identifier)),
        }
    };
    let (name, old) = (name_of(identifier), told(named, was.as_ref(), had_revision));
    let new = told(identifier, identity.as_ref(), revision);
    if is_image(identifier) {
        // An index has images for many platforms.
        if old == new && identifier.contains('@') {
            return vec![Cause::Flag { name: PLATFORM.to_owned() }];
        }
        return vec![Cause::BaseImage { name, old, new }];
    }
    match named != identifier && line {
        true => Vec::new(),
        false => vec![Cause::Source { name, old, new }],
    }
}

/// An identifier without its scheme and the digest that an image was found under.
fn name_of(identifier: &str) -> String {
    let tag = tag_of(identifier);
    tag.split_once("://").map_or(tag, |(_, name)| name).to_owned()
}

/// Whether an identifier is an image's.
fn is_image(identifier: &str) -> bool {
    ["docker-image://", "oci-layout://"].iter().any(|scheme| identifier.starts_with(scheme))
}

/// An image's name without the digest that it was found under; any other identifier as it is.
fn tag_of(identifier: &str) -> &str {
    let tag = identifier.split_once('@').filter(|_| is_image(identifier));
    tag.map_or(identifier, |(tag, _)| tag)
}

/// The digest that an image's name has, or else that of what was found.
fn digest_of(identifier: &str, identity: Option<&Digest>) -> String {
    match (identifier.split_once('@'), identity) {
        (Some((_, digest)), _) if identifier.starts_with("docker-image://") => digest.to_owned(),
        (_, Some(digest)) => digest.to_string(),
        (_, None) => identifier.to_owned(),
    }
}

/// What is different about what a step does.
fn of_op(old: &Step, new: &Step) -> Vec<Cause> {
    let fields = changed(&old.fields, &new.fields);
    if fields.is_empty() && old.op == new.op {
        return Vec::new();
    }
    let mut found = changed_variables(&old.variables, &new.variables);
    let text = !old.is_written_as(new);
    if text {
        found.insert(0, Cause::Instruction { old: old.text.clone(), new: new.text.clone() });
    }
    let by_variables = !found.is_empty() && !text || found.len() > 1;
    let (mut around, mut own) = (BTreeSet::new(), BTreeSet::new());
    for field in &fields {
        match field_name(field) {
            Field::Variable => {}
            Field::Own(name) => {
                own.insert(name);
            }
            Field::Around(name) => {
                around.insert(name);
            }
        }
    }
    for name in around {
        let cause = match name {
            EPOCH => Cause::Arg { name: name.to_owned() },
            flag if flag.starts_with("--") => Cause::Flag { name: flag.to_owned() },
            name => Cause::Setting { name: name.to_owned() },
        };
        // An instruction may have such a flag itself, and another instruction be written with a variable.
        let told = match cause {
            Cause::Flag { .. } => text,
            _ => by_variables,
        };
        if !told {
            found.push(cause);
        }
    }
    if found.is_empty() {
        found.extend(own.iter().map(|name| Cause::Setting { name: (*name).to_owned() }));
    }
    found
}

/// The build argument that sets the times of files.
const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// The flag, of a build or of FROM, that says what an image is for.
const PLATFORM: &str = "--platform";

/// A field, as a user knows it.
enum Field {
    /// A variable of the environment, told as ARG or ENV.
    Variable,
    /// Part of what the instruction says, by the name of what else may change it.
    Own(&'static str),
    /// Set by something else: a flag of the build, or another instruction.
    Around(&'static str),
}

fn field_name(field: &str) -> Field {
    let part = field.split_once('.').filter(|(i, _)| i.bytes().all(|b| b.is_ascii_digit()));
    match part.map_or(field, |(_, part)| part) {
        name if name.starts_with("env.") => Field::Variable,
        "network" => Field::Around("--network"),
        "add-host" => Field::Around("--add-host"),
        "ulimit" => Field::Around("--ulimit"),
        "platform" => Field::Around(PLATFORM),
        "mount./dev/shm" => Field::Around("--shm-size"),
        "hostname" => Field::Around("BUILDKIT_SANDBOX_HOSTNAME"),
        "workdir" => Field::Around("WORKDIR"),
        "user" => Field::Around("USER"),
        "time" => Field::Around(EPOCH),
        "command" => Field::Own("SHELL"),
        "path" => Field::Own("WORKDIR"),
        "chown" => Field::Own("owner"),
        "chmod" => Field::Own("mode"),
        "security" => Field::Own("--security"),
        "data" => Field::Own("document"),
        "source" | "patterns" => Field::Own("source"),
        name if name.starts_with("mount.") => Field::Own("--mount"),
        _ => Field::Own("options"),
    }
}

fn changed(old: &BTreeMap<String, Digest>, new: &BTreeMap<String, Digest>) -> BTreeSet<String> {
    let names = old.keys().chain(new.keys());
    names.filter(|name| old.get(*name) != new.get(*name)).cloned().collect()
}

/// The variables that have other values, but for those that follow from others alone.
fn changed_variables(old: &BTreeMap<String, Noted>, new: &BTreeMap<String, Noted>) -> Vec<Cause> {
    let value = |noted: &BTreeMap<String, Noted>, name: &str| noted.get(name).map(|noted| noted.value);
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed: BTreeSet<&String> =
        names.into_iter().filter(|name| value(old, name) != value(new, name)).collect();
    let follows = |name: &str| match (old.get(name), new.get(name)) {
        (Some(old), Some(new)) => {
            old.text == new.text && new.from.iter().any(|from| from != name && changed.contains(from))
        }
        _ => false,
    };
    let own = changed.iter().filter(|name| !follows(name));
    let cause = |name: &&&String| {
        let name = (**name).clone();
        match new.get(&name).or_else(|| old.get(&name)) {
            Some(Noted { arg: true, .. }) => Cause::Arg { name },
            _ => Cause::Env { name },
        }
    };
    own.map(|name| cause(&name)).collect()
}

/// What the next build compares with: steps that this one did not reach or came to nothing keep what was known.
pub(super) fn carry(before: &Account, mut now: Account, courses: &[Course]) -> Account {
    let was = align(&before.steps, &now.steps);
    for course in courses {
        let Some((step, old)) = course.step.and_then(|step| Some((step, (*was.get(step)?)?))) else {
            continue;
        };
        let (Some(new), Some(old)) = (now.steps.get_mut(step), before.steps.get(old)) else { continue };
        if course.outcome == Outcome::NotReached && new.definition != old.definition {
            *new = old.clone();
        } else if course.outcome == Outcome::NotReached || new.definition == old.definition {
            new.finished |= old.finished && course.outcome == Outcome::NotReached;
            for (new, old) in new.inputs.iter_mut().zip(&old.inputs) {
                new.content = new.content.or(old.content);
            }
        }
    }
    now
}

#[cfg(test)]
mod tests;
