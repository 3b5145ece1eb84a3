//! Going through the needed stages, instruction by instruction.

use std::rc::Rc;

use crate::ast::{Command, Instruction};
use crate::lint;
use crate::lower::arena::Output;
use crate::lower::build::Context;
use crate::lower::copy::CopyPlan;
use crate::lower::env::split;
use crate::lower::error::{At, Failures, Fault, LowerError, Result};
use crate::lower::stage::{Stage, StageId, Stages, Step, UsedPaths};
use crate::lower::{configure, copy, expose, healthcheck, run};
use crate::words::{Env as _, Expansion};

/// Variables that an SBOM scanner reads; commands do not see them.
pub(super) const SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
/// As [`SCAN_CONTEXT`], for stages.
pub(super) const SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

/// A stage that an instruction takes files from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) output: Option<Output>,
    pub(super) dispatched: bool,
    pub(super) paths: UsedPaths,
}

/// Evaluates the stages that are needed, or all where that was asked for.
pub(super) fn stages<'a>(
    context: &mut Context<'a>,
    stages: &mut Stages<'a>,
    reachable: &[bool],
    target: StageId,
    failures: &mut Failures,
) -> Result<()> {
    let all = context.options.all_stages;
    let wanted = stages.ids().filter(|&id| all || reachable[id] && !stages[id].dispatched);
    let wanted: Vec<StageId> = wanted.collect();
    let mut heirs = vec![0_usize; stages.len()];
    wanted.iter().filter_map(|&id| stages[id].base).for_each(|base| heirs[base] += 1);
    for id in wanted {
        if let Some(base) = stages[id].base {
            heirs[base] -= 1;
            stages.inherit(id, heirs[base] == 0 && base != target);
        }
        stage(context, stages, id, failures)?;
    }
    Ok(())
}

fn stage<'a>(
    context: &mut Context<'a>,
    stages: &mut Stages<'a>,
    id: StageId,
    failures: &mut Failures,
) -> Result<()> {
    stages[id].dispatched = true;
    let mut current = std::mem::take(&mut stages[id]);
    let steps = std::mem::take(&mut current.steps);
    let begun = begin(context, &mut current).map_err(|error| match current.lines {
        Some(lines) => error.at(lines),
        None => error,
    });
    failures.note(begun, &mut context.linter)?;
    for step in &steps {
        let source = |&source: &StageId| Source {
            output: stages[source].state.output,
            dispatched: stages[source].dispatched,
            paths: Rc::clone(&stages[source].paths),
        };
        let sources: Vec<Source> = step.sources.iter().map(source).collect();
        current.in_onbuild = step.onbuild;
        let done = instruction(context, &mut current, step, &sources).at(step.instruction.lines);
        failures.note(done, &mut context.linter)?;
    }
    note_scans(context, &mut current);
    current.steps = steps;
    stages[id] = current;
    Ok(())
}

/// What a stage's base says about environment, directory and user.
fn begin(context: &Context<'_>, stage: &mut Stage<'_>) -> Result<()> {
    if stage.platform.is_none() {
        stage.platform = Some(context.target_platform.clone());
    }
    if stage.os() != "windows" && stage.image.config.env("PATH").is_none() {
        stage.image.config.env.push(format!("PATH={}", crate::config::DEFAULT_PATH));
    }
    for entry in &stage.image.config.env {
        let (key, value) = split(entry);
        stage.state.env.set(key, value);
    }
    if !context.options.hostname.is_empty() {
        stage.state.hostname.clone_from(&context.options.hostname);
    }
    if !stage.image.config.working_dir.is_empty() {
        let dir = stage.image.config.working_dir.clone();
        configure::set_workdir(stage, &dir)?;
    }
    if !stage.image.config.user.is_empty() {
        stage.state.user.clone_from(&stage.image.config.user);
    }
    stage.state.network = context.options.network;
    Ok(())
}

fn instruction(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    step: &Step<'_>,
    sources: &[Source],
) -> Result<()> {
    let instruction = &*step.instruction;
    match &instruction.command {
        Command::Maintainer(author) => configure::maintainer(context, stage, author),
        Command::Env(env) => configure::env(context, stage, instruction, env)?,
        Command::Label(label) => configure::label(context, stage, instruction, label)?,
        Command::Arg(arg) => configure::arg(context, stage, instruction, arg)?,
        Command::Workdir(path) => configure::workdir(context, stage, instruction, path)?,
        Command::User(user) => configure::user(context, stage, instruction, user)?,
        Command::Volume(paths) => configure::volume(context, stage, instruction, paths)?,
        Command::Shell(words) => configure::shell(context, stage, words),
        Command::StopSignal(signal) => configure::stop_signal(context, stage, instruction, signal)?,
        Command::Cmd(line) => configure::cmd(context, stage, instruction, line),
        Command::Entrypoint(line) => configure::entrypoint(context, stage, instruction, line),
        Command::Healthcheck(check) => healthcheck::healthcheck(context, stage, instruction, check),
        Command::Expose(ports) => expose::expose(context, stage, instruction, ports)?,
        Command::Onbuild(onbuild) => stage.image.config.on_build.push(onbuild.expression.clone()),
        Command::Run(command) => run::run(context, stage, instruction, command, sources)?,
        Command::Copy(command) => {
            let source = sources.first();
            if let (Some(source), Some(from)) = (source, &command.from)
                && !source.dispatched
            {
                let stage = stage.label.clone();
                return Err(LowerError::word(Fault::CopyFromLater { from: from.clone(), stage }, from));
            }
            copy::copy(context, stage, instruction, &CopyPlan::of_copy(command), source)?;
        }
        Command::Add(command) => copy::copy(context, stage, instruction, &CopyPlan::of_add(command), None)?,
        Command::From(_) | Command::Invalid => {}
    }
    Ok(())
}

/// Expands a word of an instruction in the stage's environment, and reports variables that are not set.
pub(super) fn expand(
    context: &mut Context<'_>,
    stage: &Stage<'_>,
    instruction: &Instruction,
    word: &str,
) -> Result<String> {
    let (expansion, error) = context.lexer.expand_noting(word, &stage.state.env);
    report_unset(context, stage, instruction, &expansion);
    if let Some(error) = error {
        return Err(LowerError::word(error, word));
    }
    Ok(expansion.text)
}

/// UndefinedVar: variables that no ARG declares.
pub(super) fn report_unset(
    context: &mut Context<'_>,
    stage: &Stage<'_>,
    instruction: &Instruction,
    expansion: &Expansion,
) {
    if expansion.unmatched.is_empty() {
        return;
    }
    let declared = |name: &str| {
        [SCAN_CONTEXT, SCAN_STAGE].contains(&name) || stage.build_args.iter().any(|arg| arg.key == name)
    };
    let unset = expansion.unmatched.iter().map(String::as_str).filter(|name| !declared(name));
    let known: Vec<&str> = stage.state.env.keys().collect();
    lint::undefined_variables(&mut context.linter, instruction, unset, &known);
}

/// Whether an SBOM is to cover the context, or this stage.
fn note_scans(context: &Context<'_>, stage: &mut Stage<'_>) {
    let wanted = |name: &str| {
        let global = context.global_args.get(name);
        let own = stage.build_args.iter().rev().find(|arg| arg.key == name && arg.value.is_some());
        let value = own.and_then(|arg| arg.value.as_deref()).or(global);
        value.is_some_and(|value| {
            crate::number::boolean(value).unwrap_or_else(|| value.split(',').any(|name| name == stage.label))
        })
    };
    let (scan_context, scan_stage) = (wanted(SCAN_CONTEXT), wanted(SCAN_STAGE));
    stage.scan_context |= scan_context;
    stage.scan_stage |= scan_stage;
}
