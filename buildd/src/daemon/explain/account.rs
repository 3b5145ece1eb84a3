//! An account: what each step of a build was keyed on, in digests; values of variables may be secrets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use solver::graph::SourceLocation;
use solver::op::{ActionInput, FileAction, FileActionKind};
use solver::{
    Digest, Ended, Finding, Found, Graph, Key, LayerId, Op, Reason, Selection, SourceIdentity, Use, Vertex,
    key, redacted,
};

use crate::explanation::Outcome;

/// What a project's build was keyed on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Account {
    /// The build's ref.
    pub build: String,
    /// What it was for, separated by commas.
    #[serde(default)]
    pub platforms: String,
    /// Its steps, inputs first; sources are none.
    pub steps: Vec<Step>,
}

/// What a step was keyed on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Step {
    /// Its stage.
    pub stage: String,
    /// Its instruction, as the file has it, without credentials.
    pub text: String,
    /// Of the instruction as it is.
    pub raw: Digest,
    /// What does it: `exec`, `file`, ….
    pub does: String,
    /// Of what is done.
    pub op: Digest,
    /// Of each field of that.
    pub fields: BTreeMap<String, Digest>,
    /// The variables that it was made with, by name.
    pub variables: BTreeMap<String, Noted>,
    /// What it stands on.
    pub inputs: Vec<Input>,
    /// What it is defined as.
    pub definition: Option<Key>,
    /// Whether it came to a result.
    pub finished: bool,
    /// That result came from a shared cache.
    #[serde(default)]
    pub imported: bool,
}

impl Step {
    /// Whether a later step is written as this one was.
    pub(super) fn is_written_as(&self, later: &Self) -> bool {
        // Elsewhere not even a digest is kept of what is masked.
        self.raw == later.raw || (self.text == later.text && self.raw == Digest::of(self.text.as_bytes()))
    }
}

impl Account {
    /// How many steps of a later build this one had, by what the file says.
    pub(super) fn has(&self, later: &Self) -> usize {
        let has = |step: &&Step| self.steps.iter().any(|own| own.is_written_as(step));
        later.steps.iter().filter(has).count()
    }

    /// The same for others to read: of what is masked in instructions there is no digest.
    pub(super) fn without_what_is_masked(&self) -> Self {
        let mut account = self.clone();
        for step in &mut account.steps {
            step.raw = Digest::of(step.text.as_bytes());
        }
        account
    }
}

/// What is kept of a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Noted {
    /// An ARG, and no ENV.
    pub arg: bool,
    /// Of its value.
    pub value: Digest,
    /// Of what the file says it is.
    pub text: Digest,
    /// The variables that that was expanded with.
    pub from: Vec<String>,
}

/// What a step stands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Input {
    /// What it is to the step: a mount's target, `/` for what it builds upon, `from` for what is copied.
    pub role: String,
    /// What of it is used; `None`: all.
    pub selections: Option<Vec<Selection>>,
    /// What it is.
    pub what: What,
    /// What it contains, if that is known.
    pub content: Option<Digest>,
}

/// What an input is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// A step, by what it is defined as.
    Step(Option<Key>),
    /// A directory of the client, by its name.
    Directory(String),
    /// A document in the Dockerfile.
    Document {
        /// Its name, such as `EOF`.
        name: String,
        /// Of what it says, and of how it is written as a file.
        data: Digest,
        /// The variables that it was expanded with.
        variables: BTreeMap<String, Noted>,
    },
    /// Something else from outside.
    Source {
        /// Scheme and reference, without credentials.
        identifier: String,
        /// What it was found to be.
        identity: Option<Digest>,
        /// What people know that by, where they know it by something else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<String>,
        /// Of the line that names it.
        raw: Digest,
        /// The variables that the line was expanded with.
        variables: BTreeMap<String, Noted>,
    },
}

/// What a build did with a step; of no other build's interest.
#[derive(Debug, Clone)]
pub(super) struct Course {
    /// As it is shown.
    pub name: String,
    /// What clients know it by.
    pub digest: Digest,
    /// Where it stands in the account, if it is a step.
    pub step: Option<usize>,
    /// The courses of its inputs, by input.
    pub inputs: Vec<usize>,
    pub outcome: Outcome,
    pub seconds: Option<f64>,
    /// The first line of what it failed with.
    pub error: Option<String>,
    /// It was itself asked to run again.
    pub forced: bool,
    /// What it was looked up by when it ran.
    pub key: Option<Key>,
    /// What it is defined as.
    pub definition: Option<Key>,
    /// The layers that were gone.
    pub lost: Vec<LayerId>,
    /// Its stage.
    pub stage: String,
}

/// The graphs of a build and what was found of them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    graphs: Vec<SeenGraph>,
}

/// A graph and what was found of it, by vertex.
#[derive(Debug)]
struct SeenGraph {
    graph: Arc<Graph>,
    digests: Vec<Digest>,
    findings: Vec<Option<Finding>>,
}

impl Seen {
    /// Takes what an evaluation of a graph told; its vertices are known by `digests`.
    pub(super) fn add(
        &mut self,
        graph: &Arc<Graph>,
        digests: &[Digest],
        findings: Vec<(solver::VertexId, Finding)>,
    ) {
        let known = self.graphs.iter().position(|seen| Arc::ptr_eq(&seen.graph, graph));
        let at = known.unwrap_or_else(|| {
            let findings = vec![None; graph.vertices().len()];
            self.graphs.push(SeenGraph { graph: graph.clone(), digests: digests.to_vec(), findings });
            self.graphs.len() - 1
        });
        for (id, finding) in findings {
            merge(&mut self.graphs[at].findings[id.index()], finding);
        }
    }

    /// Whether anything was executed.
    pub(super) fn worked(&self) -> bool {
        let ran = |finding: &Finding| matches!(finding.how, Found::Executed(_));
        self.graphs.iter().flat_map(|seen| &seen.findings).flatten().any(ran)
    }

    /// Each vertex once, with what was found of it, inputs first.
    fn vertices(&self) -> Vec<Met<'_>> {
        let mut places: HashMap<Digest, usize> = HashMap::new();
        let mut met: Vec<Met<'_>> = Vec::new();
        for SeenGraph { graph, digests, findings } in &self.graphs {
            for (i, vertex) in graph.vertices().iter().enumerate() {
                let Some(finding) = &findings[i] else { continue };
                match places.get(&digests[i]) {
                    Some(&at) => merge(&mut met[at].finding, finding.clone()),
                    None => {
                        let at = |e: &solver::Edge| places.get(&digests[e.vertex.index()]).copied();
                        let inputs = vertex.inputs.iter().map(|e| Some((at(e)?, e.output))).collect();
                        places.insert(digests[i], met.len());
                        met.push(Met {
                            graph,
                            vertex,
                            digest: digests[i],
                            inputs,
                            finding: Some(finding.clone()),
                        });
                    }
                }
            }
        }
        met
    }

    /// What went on, without what it was keyed on.
    pub(super) fn courses(&self) -> Vec<Course> {
        let met = self.vertices();
        let mut steps = 0..;
        met.iter()
            .map(|met| {
                let name = redacted(&crate::llb::vertex_name(met.vertex)).into_owned();
                let step = if is_outside(met.vertex) { None } else { steps.next() };
                met.course(name, step)
            })
            .collect()
    }

    /// What all of it was keyed on, in a build for `platforms`.
    pub(super) fn account(&self, build: &str, platforms: &str) -> Account {
        let met = self.vertices();
        let steps = met.iter().filter(|one| !is_outside(one.vertex));
        Account {
            build: build.to_owned(),
            platforms: platforms.to_owned(),
            steps: steps.map(|one| one.step(&met)).collect(),
        }
    }

    /// The definitions of all steps: equal for builds that were keyed on the same.
    pub(super) fn definitions(&self) -> Digest {
        let mut hasher = solver::digest::Hasher::new("rbuild.explain.definitions.v1");
        for SeenGraph { graph, findings, .. } in &self.graphs {
            let steps = graph.vertices().iter().zip(findings).filter(|(v, _)| !matches!(v.op, Op::Source(_)));
            for finding in steps.filter_map(|(_, finding)| finding.as_ref()) {
                hasher.digest(&finding.definition.map_or(Digest::of(b""), |key| key.0));
            }
        }
        hasher.finish()
    }
}

/// Adds a later finding: what ran once ran, and what was known stays known.
fn merge(slot: &mut Option<Finding>, later: Finding) {
    let Some(known) = slot else {
        *slot = Some(later);
        return;
    };
    known.definition = later.definition.or(known.definition);
    known.source = later.source.or(known.source.take());
    known.contents.extend(later.contents);
    let rank = |how: &Found| match how {
        Found::NotReached => 0,
        Found::Known => 1,
        Found::Elsewhere => 2,
        // A pass that began anew may have dropped what a later one brought to its end.
        Found::Executed(execution) => match execution.ended {
            Ended::Canceled => 3,
            Ended::Failed => 4,
            Ended::Well => 5,
        },
    };
    if rank(&later.how) >= rank(&known.how) {
        known.how = later.how;
    }
}

/// A vertex that was met.
struct Met<'a> {
    graph: &'a Graph,
    vertex: &'a Vertex,
    digest: Digest,
    /// Where its inputs are among all that were met, and which output of them is meant.
    inputs: Vec<Option<(usize, u32)>>,
    finding: Option<Finding>,
}

impl Met<'_> {
    fn course(&self, name: String, step: Option<usize>) -> Course {
        let finding = self.finding.as_ref();
        let mut course = Course {
            stage: stage_of(&name).to_owned(),
            name,
            digest: self.digest,
            step,
            inputs: self.inputs.iter().flatten().map(|(at, _)| *at).collect(),
            outcome: Outcome::Source,
            seconds: None,
            error: None,
            forced: self.vertex.meta.ignore_cache,
            key: None,
            definition: finding.and_then(|finding| finding.definition),
            lost: Vec::new(),
        };
        if step.is_none() {
            return course;
        }
        course.outcome = match finding.map(|finding| &finding.how) {
            None | Some(Found::NotReached) => Outcome::NotReached,
            Some(Found::Known) => Outcome::Cached,
            Some(Found::Elsewhere) => Outcome::Imported,
            Some(Found::Executed(execution)) => {
                course.key = Some(execution.key);
                course.seconds = Some(execution.took.as_secs_f64());
                if let Reason::Lost(layers) = &execution.reason {
                    course.lost.clone_from(layers);
                }
                match execution.ended {
                    Ended::Well => Outcome::Ran,
                    Ended::Failed => Outcome::Failed,
                    Ended::Canceled => Outcome::Canceled,
                }
            }
        };
        course
    }

    fn step(&self, all: &[Met<'_>]) -> Step {
        let uses = key::input_uses(self.vertex);
        let name = redacted(&crate::llb::vertex_name(self.vertex)).into_owned();
        let raw = self.raw().unwrap_or_else(|| name.clone());
        let roles = roles(self.vertex);
        let inputs = self.inputs.iter().zip(uses.iter().zip(roles)).filter_map(|(input, (used, role))| {
            let (at, output) = (*input)?;
            Some(all.get(at)?.as_input(output, used, role))
        });
        let finding = self.finding.as_ref();
        let finished = finding.is_some_and(|finding| match &finding.how {
            Found::Executed(execution) => execution.ended == Ended::Well,
            Found::Known | Found::Elsewhere => true,
            Found::NotReached => false,
        });
        Step {
            stage: stage_of(&name).to_owned(),
            text: redacted(&raw).into_owned(),
            raw: Digest::of(raw.as_bytes()),
            does: does(&self.vertex.op).to_owned(),
            op: key::op_digest(self.vertex, &uses),
            fields: key::op_fields(self.vertex, &uses),
            variables: noted(self.vertex),
            inputs: inputs.collect(),
            definition: finding.and_then(|finding| finding.definition),
            finished,
            imported: finding.is_some_and(|finding| matches!(finding.how, Found::Elsewhere)),
        }
    }

    fn as_input(&self, output: u32, used: &Use, role: String) -> Input {
        let finding = self.finding.as_ref();
        let source = finding.and_then(|finding| finding.source.as_ref());
        let what = match &self.vertex.op {
            Op::Source(op) if op.scheme_and_ref().0 == "local" => {
                What::Directory(op.scheme_and_ref().1.to_owned())
            }
            Op::Source(op) => What::Source {
                identifier: redacted(&op.identifier).into_owned(),
                identity: source.and_then(|source| match source.identity {
                    SourceIdentity::Digest(digest) => Some(digest),
                    SourceIdentity::Content => None,
                }),
                revision: source.and_then(|source| source.revision.clone()),
                raw: Digest::of(self.raw().unwrap_or_default().as_bytes()),
                variables: noted(self.vertex),
            },
            _ => match document(self.vertex) {
                Some(name) => What::Document {
                    name: name.to_owned(),
                    data: key::op_digest(self.vertex, &key::input_uses(self.vertex)),
                    variables: noted(self.vertex),
                },
                None => What::Step(finding.and_then(|finding| finding.definition)),
            },
        };
        let content = finding.and_then(|finding| finding.contents.get(&output).copied());
        let content = content.or_else(|| source.and_then(|source| source.output.as_ref()?.content));
        let selections = match used {
            Use::Selected(list) => Some(list.clone()),
            Use::Rootfs | Use::Layers => None,
        };
        Input { role, selections, what, content }
    }

    /// The lines of the source file that it comes from.
    fn raw(&self) -> Option<String> {
        let SourceLocation { source, ranges } = self.vertex.meta.locations.first()?;
        let text = String::from_utf8_lossy(&self.graph.sources.get(*source as usize)?.data);
        let lines: Vec<&str> = text.lines().collect();
        let part = |range: &solver::graph::SourceRange| {
            let end = (range.end_line as usize).min(lines.len());
            let start = (range.start_line as usize).saturating_sub(1).min(end);
            lines[start..end].join("\n")
        };
        let text = ranges.iter().map(part).collect::<Vec<_>>().join("\n");
        (!text.is_empty()).then_some(text)
    }
}

/// What frontends call a vertex that is a document in the Dockerfile.
const DOCUMENT: &str = "internal] preparing inline document";

/// The name of the document in the Dockerfile that a vertex is, if it is one.
fn document(vertex: &Vertex) -> Option<&str> {
    let Op::File(op) = &vertex.op else { return None };
    let [FileAction { input: ActionInput::Scratch, kind: FileActionKind::MkFile(file), .. }] =
        &op.actions[..]
    else {
        return None;
    };
    crate::llb::vertex_name(vertex).ends_with(DOCUMENT).then(|| file.path.trim_start_matches('/'))
}

/// Whether a vertex is no step: something from outside, or a document in the Dockerfile.
fn is_outside(vertex: &Vertex) -> bool {
    matches!(vertex.op, Op::Source(_)) || document(vertex).is_some()
}

fn noted(vertex: &Vertex) -> BTreeMap<String, Noted> {
    let noted = |v: &Arc<solver::Variable>| {
        let solver::Variable { name, arg, value, text, from } = &**v;
        (name.clone(), Noted { arg: *arg, value: *value, text: *text, from: from.clone() })
    };
    vertex.meta.variables.iter().map(noted).collect()
}

fn does(op: &Op) -> &'static str {
    match op {
        Op::Source(_) => "source",
        Op::Exec(_) => "exec",
        Op::File(_) => "file",
        Op::Merge(_) => "merge",
        Op::Diff(_) => "diff",
        Op::Build(_) => "build",
        Op::Passthrough(_) => "passthrough",
    }
}

/// What each input is to the vertex.
fn roles(vertex: &Vertex) -> Vec<String> {
    let mut roles: Vec<String> = (0..vertex.inputs.len()).map(|i| format!("input {i}")).collect();
    let mut set = |input: Option<usize>, role: &str| {
        if let Some(slot) = input.and_then(|i| roles.get_mut(i)) {
            role.clone_into(slot);
        }
    };
    match &vertex.op {
        Op::Exec(exec) => exec.mounts.iter().for_each(|mount| set(mount.input, &mount.dest)),
        Op::File(file) => {
            for action in &file.actions {
                let of = |input: ActionInput| match input {
                    ActionInput::Vertex(i) => Some(i),
                    ActionInput::Scratch | ActionInput::Action(_) => None,
                };
                if let FileActionKind::Copy(_) = action.kind {
                    set(of(action.secondary), "from");
                }
                set(of(action.input), "/");
            }
        }
        _ => {}
    }
    roles
}

/// The stage that a step's name tells: `[linux/arm64 build 2/4] RUN make` is of `linux/arm64 build`.
pub(super) fn stage_of(name: &str) -> &str {
    let Some((inside, _)) = name.strip_prefix('[').and_then(|rest| rest.split_once(']')) else { return "" };
    match inside.trim_end().rsplit_once(' ') {
        Some((stage, number)) if number.contains('/') => stage.trim_end(),
        None if inside.contains('/') => "",
        _ => inside,
    }
}

#[cfg(test)]
mod tests {
    use super::stage_of;

    #[test]
    fn stages_of_names() {
        for (name, stage) in [
            ("[build 2/4] RUN make", "build"),
            ("[build  2/14] RUN make", "build"),
            ("[linux/arm64 build 2/4] RUN make", "linux/arm64 build"),
            ("[2/4] RUN make", ""),
            ("[internal] load build context", "internal"),
            ("copy / /", ""),
        ] {
            assert_eq!(stage_of(name), stage, "{name}");
        }
    }
}
