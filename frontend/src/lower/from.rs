//! The FROM lines: bases and platforms are expanded, named contexts take their place.

use std::collections::BTreeSet;

use solver::op::Platform;

use crate::ast::{self, Command, Instruction, Place};
use crate::lint;
use crate::lower::build::Context;
use crate::lower::error::{At, Failures, Fault, LowerError, Result};
use crate::lower::named;
use crate::lower::stage::{Stage, StageId, Stages};
use crate::lower::variables;
use crate::platform;
use crate::suggest;
use crate::words::{Env as _, Expansion};

/// The name of the base that is no image.
pub(super) const SCRATCH: &str = "scratch";

/// All stages of the file, none of them evaluated.
pub(super) fn stages<'a>(context: &mut Context<'a>) -> Result<Stages<'a>> {
    let mut stages = Stages::default();
    let mut failures = Failures::default();
    for ast in &context.document.stages {
        let added = add(context, &mut stages, ast);
        failures.note(added, &mut context.linter)?;
    }
    failures.end(&mut context.linter)?;
    Ok(stages)
}

fn add<'a>(context: &mut Context<'a>, stages: &mut Stages<'a>, ast: &'a ast::Stage) -> Result<()> {
    let place = context.document.stage_place(ast);
    let (base, error) = context.lexer.expand_noting(&ast.base, &context.global_args);
    report_undeclared(context, place, &base);
    error.map_or(Ok(()), Err).at(ast.lines)?;
    if base.text.is_empty() {
        return Err(LowerError::word(Fault::BlankBase(ast.base.clone()), &ast.base).at(ast.lines));
    }
    let mut used = base.matched;
    let platform = match &ast.platform {
        Some(written) => Some(expand_platform(context, ast, place, written, &mut used).at(ast.lines)?),
        None => None,
    };
    let name = ast.name.clone().unwrap_or_default();
    let mut stage = Stage {
        ast: Some(ast),
        label: name.clone(),
        name,
        base_name: base.text,
        lines: Some(ast.lines),
        platform,
        outline: context.outline.clone(),
        variables: variables::globals(&used, &context.global_args, &context.outline),
        ..Stage::default()
    };
    if !stage.name.is_empty() {
        stage.named_context = named::find(context, &stage.name, stage.platform.as_ref())?;
    }
    if stage.named_context.is_some() {
        let id = stages.add(stage);
        stages[id].base = None;
        return Ok(());
    }
    if stage.name.is_empty() {
        stage.label = format!("stage-{}", ast.index);
    }
    stage.ignore_cache = context.options.no_cache.covers(&stage.name);
    let steps = context.document.commands(ast).iter().filter(|instruction| makes_layer(instruction)).count();
    let id = stages.add(stage);
    let stage = &mut stages[id];
    stage.outline.used.extend(used);
    stage.steps_total = steps + usize::from(stage.base_name != SCRATCH && stage.base.is_none());
    Ok(())
}

/// UndefinedArgInFrom.
fn report_undeclared(context: &mut Context<'_>, place: Place<'_>, expansion: &Expansion) {
    if expansion.unmatched.is_empty() {
        return;
    }
    let declared = context.outline.args.keys().cloned().chain(context.global_args.keys().map(str::to_owned));
    let declared: BTreeSet<String> = declared.collect();
    lint::undefined_from_args(&mut context.linter, place, &expansion.unmatched, &declared);
}

fn makes_layer(instruction: &Instruction) -> bool {
    matches!(instruction.command, Command::Add(_) | Command::Copy(_) | Command::Run(_) | Command::Workdir(_))
}

fn expand_platform(
    context: &mut Context<'_>,
    ast: &ast::Stage,
    place: Place<'_>,
    written: &str,
    used: &mut BTreeSet<String>,
) -> Result<Platform> {
    let (expansion, error) = context.lexer.expand_noting(written, &context.global_args);
    report_undeclared(context, place, &expansion);
    error.map_or(Ok(()), |error| Err(Fault::PlatformWord(error)))?;
    let target = context.global_args.get("TARGETPLATFORM").unwrap_or("");
    lint::redundant_target_platform(&mut context.linter, place, written, &expansion, target);
    let parsed = platform::parse(&expansion.text, &context.options.build_platform);
    if let Ok(parsed) = &parsed {
        let (os, architecture) = (&parsed.os, &parsed.architecture);
        lint::constant_platform(
            &mut context.linter,
            place,
            ast.name.as_deref(),
            &expansion,
            os,
            architecture,
        );
    }
    let suggestion = || {
        let near = |key: &String| suggest::nearest(key, context.global_args.keys()).map(str::to_owned);
        expansion.unmatched.iter().find_map(near)
    };
    if expansion.text.is_empty() {
        return Err(Fault::EmptyPlatform { expression: written.to_owned(), suggestion: suggestion() }.into());
    }
    let platform = parsed.map_err(|source| Fault::Platform {
        expression: written.to_owned(),
        source,
        suggestion: suggestion(),
    })?;
    used.extend(expansion.matched);
    Ok(platform)
}

/// The stage that is wanted.
pub(super) fn target(context: &Context<'_>, stages: &Stages<'_>) -> Result<StageId> {
    let Some(name) = context.options.target.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(stages.len() - 1);
    };
    stages.by_name(name).ok_or_else(|| {
        let suggestion = suggest::nearest(name, stages.labels()).map(str::to_owned);
        Fault::UnknownTarget { name: name.to_owned(), suggestion }.into()
    })
}
