//! Base images: which are needed, what they are, and the triggers that they bring.

use std::collections::HashSet;
use std::rc::Rc;

use solver::graph::VertexMeta;
use solver::op::{Op, Platform, SourceOp, attr};

use crate::ast::Command;
use crate::config::ImageConfig;
use crate::diagnostic::Diagnostic;
use crate::lint;
use crate::lower::arena::{Inputs, NewOp, Output};
use crate::lower::build::Context;
use crate::lower::env::EnvList;
use crate::lower::error::{Failures, Fault, LowerError, Result};
use crate::lower::from::SCRATCH;
use crate::lower::name::next_step;
use crate::lower::resolved::{ImageRequest, Need, ResolvedImage};
use crate::lower::stage::{Stage, StageId, Stages, Written};
use crate::lower::state::State;
use crate::lower::{deps, named};
use crate::options::ResolveMode;
use crate::parse::parse_trigger;
use crate::platform;
use crate::reference::Reference;
use crate::span::Lines;
use crate::suggest;

/// Images whose names people mistype.
const COMMON_IMAGES: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// Makes the base of every needed stage known, and returns which stages are needed; triggers may need more.
pub(super) fn resolve<'a>(
    context: &mut Context<'a>,
    stages: &mut Stages<'a>,
    target: StageId,
) -> Result<Vec<bool>> {
    loop {
        let reachable = stages.reachable(target);
        resolve_bases(context, stages, &reachable)?;
        if !add_triggers(context, stages, &reachable)? {
            let mut reachable = reachable;
            reachable.resize(stages.len(), false);
            return Ok(reachable);
        }
    }
}

fn resolve_bases(context: &mut Context<'_>, stages: &mut Stages<'_>, reachable: &[bool]) -> Result<()> {
    let (mut needs, mut failures) = (Vec::new(), Failures::default());
    for id in stages.ids() {
        let stage = &stages[id];
        if stage.base.is_some() || stage.dispatched || stage.resolved {
            continue;
        }
        let needed = reachable[id] || context.options.all_stages;
        match resolve_base(context, stages, id, needed) {
            Ok(()) => {}
            Err(LowerError::Needs(more)) => needs.extend(more),
            Err(error) => {
                let error = match stages[id].lines {
                    Some(lines) => error.at(lines),
                    None => error,
                };
                failures.note(Err(error), &mut context.linter)?;
            }
        }
    }
    // BuildKit resolves all of them at once, so findings about all of them stay.
    failures.end_with_all()?;
    if needs.is_empty() { Ok(()) } else { Err(LowerError::Needs(without_repeats(needs))) }
}

fn without_repeats(needs: Vec<Need>) -> Vec<Need> {
    let mut images = HashSet::new();
    let mut unique: Vec<Need> = Vec::new();
    for need in needs {
        let is_new = match &need {
            Need::Image(ImageRequest { reference, platform, oci_store, .. }) => {
                images.insert((reference.clone(), platform.clone(), oci_store.clone()))
            }
            other => !unique.contains(other),
        };
        if is_new {
            unique.push(need);
        }
    }
    unique
}

fn resolve_base(context: &mut Context<'_>, stages: &mut Stages<'_>, id: StageId, needed: bool) -> Result<()> {
    stages[id].resolved = needed;
    let is_scratch = stages[id].base_name == SCRATCH && stages[id].named_context.is_none();
    if is_scratch {
        let stage = &mut stages[id];
        stage.state = State::scratch();
        stage.image = ImageConfig::scratch(&context.target_platform);
        stage.platform = Some(context.target_platform.clone());
        stage.dispatched |= stage.is_unregistered();
        return Ok(());
    }
    let result = resolve_image(context, stages, id, needed);
    stages[id].dispatched |= stages[id].is_unregistered();
    result
}

fn resolve_image(
    context: &mut Context<'_>,
    stages: &mut Stages<'_>,
    id: StageId,
    needed: bool,
) -> Result<()> {
    let written = stages[id].base_name.clone();
    let reference = Reference::parse(&written)
        .map_err(|source| LowerError::word(Fault::StageName { name: written.clone(), source }, &written))?
        .or_latest();
    let platform = stages[id].platform.clone().unwrap_or_else(|| context.target_platform.clone());
    if !needed {
        stages[id].base_name = reference.to_string();
        return place_image(context, &mut stages[id], platform);
    }
    if let Some(named) = stages[id].named_context.clone() {
        return replace_stage(context, &mut stages[id], &named);
    }
    if let Some(named) = named::find(context, &reference.to_string(), Some(&platform))? {
        return replace_image(context, &mut stages[id], &named, platform);
    }
    let request = image_request(context, stages, id, &written, &reference, &platform);
    context.images.push(request.clone());
    let Some(found) = context.resolved.image(&request) else {
        let known = stages.labels().chain(COMMON_IMAGES);
        let suggestion = suggest::nearest(&written, known).map(str::to_owned);
        return Err(LowerError::Needs(vec![Need::Image(ImageRequest { suggestion, ..request })]));
    };
    use_image(context, &mut stages[id], found, &written, reference, platform)
}

/// Starts a stage from an image that was found.
fn use_image(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    found: &ResolvedImage,
    written: &str,
    mut reference: Reference,
    mut platform: Platform,
) -> Result<()> {
    if let Some(other) = found.elsewhere.clone() {
        return Err(Fault::NoImage { name: reference.to_string(), other }.into());
    }
    if let Some(name) = &found.reference {
        reference =
            Reference::parse(name).map_err(|source| Fault::ResolvedName { name: name.clone(), source })?;
    }
    if let Some(digest) = &found.digest {
        reference = reference.with_digest(digest);
    }
    let image: ImageConfig =
        serde_json::from_slice(&found.config).map_err(|error| Fault::ImageConfig(error.to_string()))?;
    if stage.platform.is_none() && context.implicit_platform {
        platform = detected_platform(&image, platform, &context.options.build_platform);
    }
    stage.base_name = reference.to_string();
    stage.base_image = Some(image.clone());
    let empty = image.is_empty();
    stage.image = ImageConfig { created: None, ..image };
    if empty {
        stage.state = State::scratch();
        stage.platform = Some(platform);
        return Ok(());
    }
    check_platform(context, stage, written, &platform);
    place_image(context, stage, platform)
}

/// Adds the operation that brings the image.
fn place_image(context: &mut Context<'_>, stage: &mut Stage<'_>, platform: Platform) -> Result<()> {
    let shown = context.shown_platform(Some(&platform));
    let text = format!("FROM {}", stage.base_name);
    let name = next_step(stage, &text, shown, &EnvList::default());
    let code = stage.ast.map_or("", |ast| context.document.from(ast).code());
    let meta = VertexMeta {
        description: described(&name, Some(code)),
        locations: stage.lines.map_or(Vec::new(), Context::location),
        variables: stage.variables.clone(),
        ..VertexMeta::default()
    };
    let output = image_source(context, &stage.base_name, Some(platform.clone()), meta);
    stage.state = State::of(Some(output)).on(&platform);
    stage.platform = Some(platform);
    Ok(())
}

/// The source operation of an image.
pub(super) fn image_source(
    context: &mut Context<'_>,
    reference: &str,
    platform: Option<Platform>,
    meta: VertexMeta,
) -> Output {
    let mut attrs = std::collections::BTreeMap::new();
    if context.options.resolve_mode != ResolveMode::Default {
        attrs.insert(attr::IMAGE_RESOLVE_MODE.to_owned(), context.options.resolve_mode.as_str().to_owned());
    }
    let op = Op::Source(SourceOp { identifier: format!("docker-image://{reference}"), attrs });
    let platform = Some(platform.unwrap_or_else(|| context.target_platform.clone()));
    context.arena.add(NewOp { op, inputs: Inputs::default(), platform, meta })
}

/// The descriptions of a step: its name, and the instruction that it comes from.
pub(super) fn described(name: &str, code: Option<&str>) -> std::collections::BTreeMap<String, String> {
    let mut description = std::collections::BTreeMap::from([("llb.customname".to_owned(), name.to_owned())]);
    if let Some(code) = code {
        description.insert("com.docker.dockerfile.v1.command".to_owned(), code.to_owned());
    }
    description
}

/// A named context with the name of a stage: the stage's own instructions do not count.
fn replace_stage(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    named: &named::NamedContext,
) -> Result<()> {
    let paths = Rc::clone(&stage.paths);
    let (state, image) = named::load(context, named, paths)?;
    stage.dispatched = true;
    stage.state = state;
    if let Some(image) = image {
        if !image.architecture.is_empty() && !image.os.is_empty() {
            stage.platform = Some(image.platform());
        }
        stage.image = ImageConfig { created: None, ..image };
    }
    Ok(())
}

/// A named context with the name of an image.
fn replace_image(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    named: &named::NamedContext,
    platform: Platform,
) -> Result<()> {
    let paths = Rc::clone(&stage.paths);
    let (state, image) = named::load(context, named, paths)?;
    let image = image.unwrap_or_else(|| ImageConfig::scratch(&platform));
    stage.base_image = Some(image.clone());
    stage.image = ImageConfig { created: None, ..image };
    stage.state = state.on(&platform);
    stage.platform = Some(platform);
    Ok(())
}

fn image_request(
    context: &Context<'_>,
    stages: &Stages<'_>,
    id: StageId,
    written: &str,
    reference: &Reference,
    platform: &Platform,
) -> ImageRequest {
    let shown = context.shown_platform(Some(platform));
    let prefix = shown.map_or(String::new(), |platform| format!("{} ", platform::format_all(platform)));
    ImageRequest {
        reference: reference.to_string(),
        platform: platform.clone(),
        log_name: format!("[{prefix}internal] load metadata for {reference}"),
        oci_store: None,
        written: written.to_owned(),
        lines: stages[id].lines,
        suggestion: None,
    }
}

/// Where nobody asked for a platform, the image may be of any that commands can run on.
fn detected_platform(image: &ImageConfig, target: Platform, build: &Platform) -> Platform {
    let is = |platform: &Platform| platform.os == image.os && platform.architecture == image.architecture;
    if !is(&target) && is(build) { build.clone() } else { target }
}

fn check_platform(context: &mut Context<'_>, stage: &Stage<'_>, written: &str, expected: &Platform) {
    let actual = stage.image.platform();
    if expected.os == actual.os && expected.architecture == actual.architecture {
        return;
    }
    let place = crate::ast::Place::bare(stage.lines.unwrap_or_default());
    let text = |platform| platform::format_all(&platform::normalize(platform));
    lint::base_image_platform(&mut context.linter, place, written, &text(expected), &text(&actual));
}

/// Puts the triggers of bases before the instructions of the stages; `true` when they need stages of their own.
fn add_triggers<'a>(context: &Context<'a>, stages: &mut Stages<'a>, reachable: &[bool]) -> Result<bool> {
    let mut more = false;
    for id in (0..reachable.len()).filter(|&id| reachable[id]) {
        stages.inherit(id, false);
        let mut triggers = std::mem::take(&mut stages[id].image.config.on_build);
        // Nothing of it is run, and a trigger may name the very image that brings it, without end.
        if stages[id].is_unregistered() {
            continue;
        }
        if let Some(base) = stages[id].base
            && !stages[id].onbuild_done
        {
            triggers.extend(stages[base].steps.iter().filter_map(|step| match &step.instruction.command {
                Command::Onbuild(onbuild) => Some(onbuild.expression.clone()),
                _ => None,
            }));
            stages[id].onbuild_done = true;
        }
        if !triggers.is_empty() {
            more |= add_stage_triggers(context, stages, id, &triggers)?;
        }
    }
    Ok(more)
}

fn add_stage_triggers<'a>(
    context: &Context<'a>,
    stages: &mut Stages<'a>,
    id: StageId,
    triggers: &[String],
) -> Result<bool> {
    let lines = stages[id].lines.unwrap_or_default();
    let mut steps = Vec::new();
    for trigger in triggers {
        let instruction =
            parse_trigger(trigger, lines).map_err(|diagnostic| trigger_failure(diagnostic, lines))?;
        let mut step = deps::step(Written::Trigger(Rc::new(instruction)), stages, &context.lexer)
            .map_err(|error| error.at(lines))?;
        step.onbuild = true;
        deps::depend(stages, id, &step);
        steps.push(step);
    }
    let more = steps.iter().any(|step| !step.sources.is_empty());
    let stage = &mut stages[id];
    stage.steps_total += steps.len();
    stage.steps.splice(0..0, steps);
    Ok(more)
}

fn trigger_failure(diagnostic: Diagnostic, lines: Lines) -> LowerError {
    LowerError::from(Fault::Trigger(Box::new(diagnostic))).at(lines)
}
