//! ARGs before the first FROM and the predefined ones.

use std::collections::BTreeMap;

use crate::ast::{Command, Instruction};
use crate::lower::build::Context;
use crate::lower::env::EnvList;
use crate::lower::error::{At, Failures, Result};
use crate::lower::outline::{ArgInfo, Capture};
use crate::platform;
use crate::reference::Reference;
use crate::words::{Lexer, WordError};

/// Sets the global ARGs, and reports bases that are no image names when no build argument is given.
pub(super) fn set_globals(context: &mut Context<'_>) -> Result<()> {
    let predefined = predefined(context);
    let instructions: Vec<&Instruction> = context.document.global_args().collect();
    check_default_bases(context, predefined.clone(), &instructions);
    let (mut args, mut outline) = (predefined, Capture::default());
    let mut failures = Failures::default();
    for &instruction in &instructions {
        let defined =
            define(&mut args, &mut outline, instruction, &context.lexer, &context.options.build_args);
        failures.note(defined.at(instruction.lines), &mut context.linter)?;
    }
    failures.end(&mut context.linter)?;
    context.global_args = args;
    context.outline = outline;
    Ok(())
}

/// The variables about platforms and the target, which a build argument of the same name replaces.
fn predefined(context: &Context<'_>) -> EnvList {
    let (build, target) = (&context.options.build_platform, &context.target_platform);
    let last = context.document.stages.last().and_then(|stage| stage.name.as_deref());
    let stage = context.options.target.as_deref().filter(|target| !target.is_empty()).or(last);
    let values = [
        ("BUILDPLATFORM", platform::format(build)),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", build.os_version.clone()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        ("TARGETPLATFORM", platform::format_all(target)),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", target.os_version.clone()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", target.variant.clone()),
        ("TARGETSTAGE", stage.unwrap_or("default").to_owned()),
    ];
    let mut args = EnvList::default();
    for (key, value) in values {
        args.set(key, context.options.build_args.get(key).cloned().unwrap_or(value));
    }
    args
}

/// Adds the definitions of one ARG instruction.
fn define(
    args: &mut EnvList,
    outline: &mut Capture,
    instruction: &Instruction,
    lexer: &Lexer,
    given: &BTreeMap<String, String>,
) -> std::result::Result<(), WordError> {
    let Command::Arg(command) = &instruction.command else { return Ok(()) };
    for definition in &command.args {
        let mut info = ArgInfo::new(definition, instruction.lines);
        let value = match (given.get(&definition.key), &definition.value) {
            (Some(given), _) => Some(given.clone()),
            (None, None) => None,
            (None, Some(default)) => {
                let expansion = lexer.expand(default, args)?;
                info.deps = expansion.matched;
                if info.deps.remove(&definition.key)
                    && let Some(old) = outline.args.get(&definition.key)
                {
                    info.deps.extend(old.deps.iter().cloned());
                }
                Some(expansion.text)
            }
        };
        if let Some(value) = value {
            args.set(&definition.key, &value);
            info.value = value;
        }
        outline.args.insert(definition.key.clone(), info);
    }
    Ok(())
}

/// InvalidDefaultArgInFrom; an error here is left to the real evaluation.
fn check_default_bases(context: &mut Context<'_>, mut args: EnvList, instructions: &[&Instruction]) {
    let none = BTreeMap::new();
    for instruction in instructions {
        if define(&mut args, &mut Capture::default(), instruction, &context.lexer, &none).is_err() {
            return;
        }
    }
    for stage in &context.document.stages {
        let Ok(base) = context.lexer.expand(&stage.base, &args) else { return };
        if Reference::parse(&base.text).is_err() {
            let place = context.document.stage_place(stage);
            crate::lint::invalid_default_base(&mut context.linter, place, &stage.base);
        }
    }
}
