//! Stages while they are lowered.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use solver::op::Platform;

use crate::ast::{self, Instruction};
use crate::config::ImageConfig;
use crate::lint::UsedOnce;
use crate::lower::env::split;
use crate::lower::named::NamedContext;
use crate::lower::outline::Capture;
use crate::lower::state::State;
use crate::lower::variables::Noted;
use crate::span::Lines;

/// The index of a stage in [`Stages`].
pub(crate) type StageId = usize;

/// The paths that are used of a context or an image; `/` is everything.
pub(crate) type UsedPaths = Rc<RefCell<BTreeSet<String>>>;

/// A declared ARG and its value.
#[derive(Debug, Clone)]
pub(crate) struct BuildArg {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

/// An instruction, small to keep.
#[derive(Debug, Clone)]
pub(crate) enum Written<'a> {
    /// One of the file.
    File(&'a Instruction),
    /// A trigger of the base image.
    Trigger(Rc<Instruction>),
}

impl std::ops::Deref for Written<'_> {
    type Target = Instruction;

    fn deref(&self) -> &Instruction {
        match self {
            Self::File(instruction) => instruction,
            Self::Trigger(instruction) => instruction,
        }
    }
}

/// An instruction and the stages that it takes files from.
#[derive(Debug, Clone)]
pub(crate) struct Step<'a> {
    pub(crate) instruction: Written<'a>,
    /// COPY: at most one; RUN: one for each mount.
    pub(crate) sources: Vec<StageId>,
    /// Whether it is a trigger of the base image.
    pub(crate) onbuild: bool,
}

/// A stage of the file, or an image or context that `--from` names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stage<'a> {
    /// The stage in the file; `None` for what `--from` names.
    pub(crate) ast: Option<&'a ast::Stage>,
    /// The name after AS, in lower case, or nothing.
    pub(crate) name: String,
    /// The base, expanded; the full reference once it is resolved.
    pub(crate) base_name: String,
    /// The ARGs that its FROM was expanded with.
    pub(crate) variables: Noted,
    /// The lines to blame.
    pub(crate) lines: Option<Lines>,
    /// The name in progress: `stage-K` where the file gives none; empty when there is only one stage.
    pub(crate) label: String,
    /// The stage that this one starts from.
    pub(crate) base: Option<StageId>,
    /// The stages whose files are used, and the lines that last say so.
    pub(crate) deps: Vec<(StageId, Lines)>,
    /// Where each of them stands in that list.
    pub(crate) dep_places: HashMap<StageId, usize>,
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) named_context: Option<NamedContext>,
    pub(crate) platform: Option<Platform>,
    pub(crate) state: State,
    pub(crate) image: ImageConfig,
    /// Where each variable stands in the image's list; long lists are not searched for every ENV.
    pub(crate) env_places: HashMap<String, usize>,
    /// The base image's config, unchanged.
    pub(crate) base_image: Option<ImageConfig>,
    /// The ARGs declared so far.
    pub(crate) build_args: Vec<BuildArg>,
    /// Whether its files are final.
    pub(crate) dispatched: bool,
    /// Whether its base image is known.
    pub(crate) resolved: bool,
    /// Whether the triggers of the stage that it starts from were added.
    pub(crate) onbuild_done: bool,
    /// Paths used of the main context.
    pub(crate) context_paths: BTreeSet<String>,
    /// Paths used of this stage; shared with the stages that start from it.
    pub(crate) paths: UsedPaths,
    pub(crate) ignore_cache: bool,
    /// Counts the steps that have a number.
    pub(crate) step: usize,
    pub(crate) steps_total: usize,
    /// Whether the step at hand is a trigger.
    pub(crate) in_onbuild: bool,
    /// Whether an absolute WORKDIR was seen in this file.
    pub(crate) workdir_set: bool,
    pub(crate) outline: Capture,
    pub(crate) scan_stage: bool,
    pub(crate) scan_context: bool,
    pub(crate) cmds: UsedOnce,
    /// Whether CMD was given in this stage.
    pub(crate) cmd_set: bool,
    pub(crate) entrypoints: UsedOnce,
    pub(crate) healthchecks: UsedOnce,
}

impl Stage<'_> {
    /// An image, context or stage index that `--from` names.
    pub(crate) fn unregistered(base_name: &str, lines: Option<Lines>) -> Self {
        Self { base_name: base_name.to_owned(), lines, ..Self::default() }
    }

    /// Whether it is not a stage of the file.
    pub(crate) fn is_unregistered(&self) -> bool {
        self.ast.is_none()
    }

    /// Sets a variable of the image where it stands, or adds it at the end.
    pub(crate) fn set_image_env(&mut self, key: &str, value: &str) {
        let env = &mut self.image.config.env;
        if self.env_places.is_empty() {
            for (place, entry) in env.iter().enumerate() {
                self.env_places.entry(split(entry).0.to_owned()).or_insert(place);
            }
        }
        let entry = format!("{key}={value}");
        match self.env_places.get(key) {
            Some(&place) => env[place] = entry,
            None => {
                self.env_places.insert(key.to_owned(), env.len());
                env.push(entry);
            }
        }
    }

    /// Notes that a stage's files are used.
    pub(crate) fn depend_on(&mut self, dep: StageId, lines: Lines) {
        let place = *self.dep_places.entry(dep).or_insert(self.deps.len());
        match self.deps.get_mut(place) {
            Some(entry) => entry.1 = lines,
            None => self.deps.push((dep, lines)),
        }
    }

    /// The operating system that paths are meant for.
    pub(crate) fn os(&self) -> &str {
        self.platform.as_ref().map_or("linux", |platform| platform.os.as_str())
    }
}

/// All stages, by index and name.
#[derive(Debug, Default)]
pub(crate) struct Stages<'a> {
    list: Vec<Stage<'a>>,
    names: HashMap<String, StageId>,
}

impl<'a> Stages<'a> {
    /// Adds a stage; its base is a stage when one of that name was added before.
    pub(crate) fn add(&mut self, mut stage: Stage<'a>) -> StageId {
        let id = self.list.len();
        if let Some(&base) = self.names.get(&stage.base_name) {
            stage.base = Some(base);
            stage.outline = self.list[base].outline.clone();
        }
        if !stage.name.is_empty() {
            self.names.insert(stage.name.clone(), id);
        }
        self.list.push(stage);
        id
    }

    /// The last stage of a name, whatever its case.
    pub(crate) fn by_name(&self, name: &str) -> Option<StageId> {
        self.names.get(&name.to_lowercase()).copied()
    }

    /// The labels, for suggestions.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|stage| stage.label.as_str()).filter(|label| !label.is_empty())
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn ids(&self) -> std::ops::Range<StageId> {
        0..self.list.len()
    }

    /// Which stages `target` needs, itself included; by index.
    pub(crate) fn reachable(&self, target: StageId) -> Vec<bool> {
        let mut seen = vec![false; self.list.len()];
        let mut todo = vec![target];
        while let Some(id) = todo.pop() {
            if !std::mem::replace(&mut seen[id], true) {
                todo.extend(self.list[id].base);
                todo.extend(self.list[id].deps.iter().map(|(dep, _)| *dep));
            }
        }
        seen
    }

    /// Takes over what a stage inherits from the stage that it starts from.
    ///
    /// `last` says that no other stage starts from that one, nor does anyone want its image: what grows with the
    /// file is then moved, so that a long chain of stages does not keep its history once per stage.
    pub(crate) fn inherit(&mut self, id: StageId, last: bool) {
        let Some(base) = self.list[id].base else { return };
        let base = &mut self.list[base];
        let (state, mut image) = if last {
            let output = base.state.output;
            let state = std::mem::replace(&mut base.state, State::of(output));
            (state, std::mem::take(&mut base.image))
        } else {
            (base.state.clone(), base.image.clone())
        };
        let platform = base.platform.clone();
        let (base_image, paths) = (base.base_image.clone(), Rc::clone(&base.paths));
        let (workdir_set, build_args) = (base.workdir_set, base.build_args.clone());
        image.config.on_build.clear();
        let stage = &mut self.list[id];
        stage.state = state;
        stage.platform = platform;
        stage.image = image;
        stage.base_image = base_image;
        stage.paths = paths;
        stage.workdir_set = workdir_set;
        stage.build_args.extend(build_args);
    }
}

impl<'a> std::ops::Index<StageId> for Stages<'a> {
    type Output = Stage<'a>;

    fn index(&self, id: StageId) -> &Stage<'a> {
        &self.list[id]
    }
}

impl std::ops::IndexMut<StageId> for Stages<'_> {
    fn index_mut(&mut self, id: StageId) -> &mut Self::Output {
        &mut self.list[id]
    }
}
