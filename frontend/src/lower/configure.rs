//! The instructions that change the image's config and what later commands run with, but no files.

use solver::graph::VertexMeta;
use solver::op::{ActionInput, FileAction, FileActionKind, FileOp, MkDirAction, Op};

use crate::ast::{ArgCommand, CommandLine, EnvCommand, Instruction, KeyValue, LabelCommand};
use crate::config::{Empty, History};
use crate::lint;
use crate::lower::arena::{Inputs, NewOp};
use crate::lower::base::described;
use crate::lower::build::Context;
use crate::lower::dispatch::{SCAN_CONTEXT, SCAN_STAGE, expand};
use crate::lower::error::{Fault, Result};
use crate::lower::name::step_text;
use crate::lower::outline::ArgInfo;
use crate::lower::permissions::owner;
use crate::lower::stage::{BuildArg, Stage};
use crate::lower::variables::{Definition, used};
use crate::lower::{path, signal};
use crate::quote::quote;
use crate::words::Env as _;

/// What BuildKit signs the history with.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// Adds an entry to the image's history.
pub(super) fn commit(context: &Context<'_>, stage: &mut Stage<'_>, created_by: String, layer: bool) {
    stage.image.history.push(History {
        created: context.epoch.map(crate::lower::epoch::rfc3339),
        created_by,
        comment: HISTORY_COMMENT.to_owned(),
        empty_layer: !layer,
        ..History::default()
    });
}

pub(super) fn maintainer(context: &Context<'_>, stage: &mut Stage<'_>, author: &str) {
    author.clone_into(&mut stage.image.author);
    commit(context, stage, format!("MAINTAINER {author}"), false);
}

/// Expands the pairs of ENV and LABEL, all in the environment before the instruction.
fn pairs(
    context: &mut Context<'_>,
    stage: &Stage<'_>,
    instruction: &Instruction,
    pairs: &[KeyValue],
) -> Result<Vec<(String, String)>> {
    let mut expanded = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let key = expand(context, stage, instruction, &pair.key)?;
        expanded.push((key, expand(context, stage, instruction, &pair.value)?));
    }
    Ok(expanded)
}

pub(super) fn env(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    command: &EnvCommand,
) -> Result<()> {
    let mut message = String::from("ENV");
    let expanded = pairs(context, stage, instruction, &command.env)?;
    let from = |pair: &KeyValue| used(&context.lexer, &pair.value, &stage.state.env);
    // All in the environment before the instruction.
    let from: Vec<_> = command.env.iter().map(from).collect();
    for (((key, value), pair), from) in expanded.iter().zip(&command.env).zip(from) {
        lint::legacy_key_value(&mut context.linter, instruction, pair);
        lint::secret_key(&mut context.linter, instruction, "ENV", key);
        message += &format!(" {key}={value}");
        stage.state.env.set(key, value.as_str());
        stage.state.variables.set(key, Definition { arg: false, value, text: &pair.value, from });
        stage.set_image_env(key, value);
    }
    commit(context, stage, message, false);
    Ok(())
}

pub(super) fn label(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    command: &LabelCommand,
) -> Result<()> {
    let mut message = String::from("LABEL");
    for ((key, value), pair) in
        pairs(context, stage, instruction, &command.labels)?.into_iter().zip(&command.labels)
    {
        lint::legacy_key_value(&mut context.linter, instruction, pair);
        message += &format!(" {key}={value}");
        stage.image.config.labels.insert(key, value);
    }
    commit(context, stage, message, false);
    Ok(())
}

pub(super) fn arg(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    command: &ArgCommand,
) -> Result<()> {
    let mut message = String::from("ARG");
    for definition in &command.args {
        let key = &definition.key;
        lint::secret_key(&mut context.linter, instruction, "ARG", key);
        let given = context.build_args.get(key).cloned();
        let global = context.global_args.get(key).map(str::to_owned);
        let inherited = given.is_none() && definition.value.is_none() && global.is_some();
        let value = match (given, &definition.value) {
            (Some(given), _) => Some(given),
            (None, None) => global,
            (None, Some(default)) => Some(expand(context, stage, instruction, default)?),
        };
        if let Some(value) = &value
            && ![SCAN_CONTEXT, SCAN_STAGE].contains(&key.as_str())
        {
            let (text, from) = match (context.build_args.contains_key(key), &definition.value) {
                (false, Some(default)) => (default.as_str(), used(&context.lexer, default, &stage.state.env)),
                _ => ("", Default::default()),
            };
            stage.state.env.set(key, value.as_str());
            stage.state.variables.set(key, Definition { arg: true, value, text, from });
        }
        if !inherited {
            let mut info = ArgInfo::new(definition, instruction.lines);
            info.value = value.clone().unwrap_or_default();
            stage.outline.args.insert(key.clone(), info);
        }
        stage.outline.used.insert(key.clone());
        message += &value.as_ref().map_or_else(|| format!(" {key}"), |value| format!(" {key}={value}"));
        stage.build_args.push(BuildArg { key: key.clone(), value });
    }
    commit(context, stage, message, false);
    Ok(())
}

/// Changes the working directory of commands and image, and returns it with forward slashes.
pub(super) fn set_workdir(stage: &mut Stage<'_>, dir: &str) -> Result<String> {
    let os = stage.os().to_owned();
    let dir = path::workdir(&stage.image.config.working_dir, dir, &os)?;
    let slashed = path::to_slash(&dir, &os);
    stage.image.config.working_dir = dir;
    stage.state.set_dir(&slashed);
    Ok(slashed)
}

pub(super) fn workdir(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    written: &str,
) -> Result<()> {
    let written = expand(context, stage, instruction, written)?;
    if !stage.workdir_set && !path::is_absolute(&written, stage.os()) {
        lint::relative_workdir(&mut context.linter, instruction, &written);
    }
    stage.workdir_set = true;
    let dir = set_workdir(stage, &written)?;
    if dir != "/" {
        make_workdir(context, stage, instruction, &dir);
    }
    commit(context, stage, format!("WORKDIR {dir}"), dir != "/");
    Ok(())
}

fn make_workdir(context: &mut Context<'_>, stage: &mut Stage<'_>, instruction: &Instruction, dir: &str) {
    let mut inputs = Inputs::default();
    let base = stage
        .state
        .output
        .map_or(ActionInput::Scratch, |output| ActionInput::Vertex(inputs.add(&context.arena, output)));
    let user = stage.image.config.user.as_str();
    let action = MkDirAction {
        path: path::action_path(&stage.state.dir, dir, false),
        mode: Some(0o755),
        make_parents: true,
        owner: (!user.is_empty()).then(|| owner(user, base)),
        timestamp: context.epoch.map(|seconds| seconds.saturating_mul(1_000_000_000)),
    };
    let action = FileAction {
        input: base,
        secondary: ActionInput::Scratch,
        output: Some(0),
        kind: FileActionKind::MkDir(action),
    };
    let text = step_text(&context.lexer, instruction.code(), &stage.state.env);
    let name = context.step_name(stage, &text, |stage| stage.platform.as_ref());
    let meta = VertexMeta {
        description: described(&name, None),
        locations: Context::location(instruction.lines),
        variables: stage.state.variables.of(&used(&context.lexer, instruction.code(), &stage.state.env)),
        ..VertexMeta::default()
    };
    let op = Op::File(FileOp { actions: vec![action] });
    stage.state.output = Some(context.arena.add(NewOp { op, inputs, platform: None, meta }));
}

pub(super) fn user(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    user: &str,
) -> Result<()> {
    let user = expand(context, stage, instruction, user)?;
    stage.state.user.clone_from(&user);
    commit(context, stage, format!("USER {user}"), false);
    stage.image.config.user = user;
    Ok(())
}

pub(super) fn volume(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    written: &[String],
) -> Result<()> {
    let mut paths = Vec::with_capacity(written.len());
    for path in written {
        paths.push(expand(context, stage, instruction, path)?);
    }
    if paths.iter().any(String::is_empty) {
        return Err(Fault::EmptyVolume.into());
    }
    commit(context, stage, format!("VOLUME [{}]", paths.join(" ")), false);
    stage.image.config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
    Ok(())
}

pub(super) fn stop_signal(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    written: &str,
) -> Result<()> {
    let signal = expand(context, stage, instruction, written)?;
    if !signal::is_known(&signal) {
        return Err(Fault::Signal(signal).into());
    }
    commit(context, stage, format!("STOPSIGNAL {signal}"), false);
    stage.image.config.stop_signal = signal;
    Ok(())
}

pub(super) fn shell(context: &Context<'_>, stage: &mut Stage<'_>, words: &[String]) {
    stage.image.config.shell = words.to_vec();
    commit(context, stage, format!("SHELL [{}]", words.join(" ")), false);
}

pub(super) fn cmd(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    line: &CommandLine,
) {
    stage.cmds.note(&mut context.linter, instruction);
    stage.cmd_set = true;
    stage.image.config.cmd = command_words(context, stage, instruction, line);
    stage.image.config.args_escaped = true;
    let message = format!("CMD {}", quoted(&stage.image.config.cmd));
    commit(context, stage, message, false);
}

pub(super) fn entrypoint(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    line: &CommandLine,
) {
    stage.entrypoints.note(&mut context.linter, instruction);
    stage.image.config.entrypoint = command_words(context, stage, instruction, line);
    if !stage.cmd_set {
        stage.image.config.cmd.clear();
    }
    let message = format!("ENTRYPOINT {}", quoted(&stage.image.config.entrypoint));
    commit(context, stage, message, false);
}

fn command_words(
    context: &mut Context<'_>,
    stage: &Stage<'_>,
    instruction: &Instruction,
    line: &CommandLine,
) -> Vec<String> {
    if !line.shell {
        return line.words.clone();
    }
    if stage.image.config.shell.is_empty() {
        lint::shell_form(&mut context.linter, instruction);
    }
    with_shell(stage, &line.words)
}

/// The stage's shell, and the words as one for it.
pub(super) fn with_shell(stage: &Stage<'_>, words: &[String]) -> Vec<String> {
    let mut shell = stage.image.config.shell.clone();
    if shell.is_empty() {
        let usual: &[&str] =
            if stage.image.os == "windows" { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
        shell.extend(usual.iter().map(|&word| word.to_owned()));
    }
    shell.push(words.join(" "));
    shell
}

/// A list as Go's `%q` prints it.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(" "))
}
