//! COPY and ADD.

use solver::graph::{ProgressGroup, VertexMeta};
use solver::op::{ActionInput, CopyAction, FileAction, FileActionKind, FileOp, MergeOp, Op};
use solver::redacted;

use crate::ast::{AddCommand, CopyCommand, InlineFile, Instruction, SourcesAndDest};
use crate::lint;
use crate::lower::arena::{Arena, Inputs, NewOp, Output};
use crate::lower::base::described;
use crate::lower::build::Context;
use crate::lower::configure::commit;
use crate::lower::dispatch::{Source, expand, report_unset};
use crate::lower::error::{Fault, LowerError, Result};
use crate::lower::name::step_text;
use crate::lower::path;
use crate::lower::permissions::{owner, parse_chmod};
use crate::lower::remote::{self, Remote, RemoteFlags};
use crate::lower::run::add_inline_file;
use crate::lower::stage::Stage;
use crate::lower::variables::{Noted, used};
use crate::words::Lexer;

/// What COPY and ADD have in common, not expanded.
#[derive(Debug)]
pub(super) struct CopyPlan<'a> {
    files: &'a SourcesAndDest,
    chown: Option<&'a str>,
    chmod: Option<&'a str>,
    link: bool,
    parents: bool,
    excludes: &'a [String],
    /// Only ADD has this.
    add: Option<AddFlags<'a>>,
}

#[derive(Debug)]
struct AddFlags<'a> {
    keep_git_dir: Option<bool>,
    checksum: Option<&'a str>,
    unpack: Option<bool>,
}

impl<'a> CopyPlan<'a> {
    pub(super) fn of_copy(command: &'a CopyCommand) -> Self {
        Self {
            files: &command.files,
            chown: command.chown.as_deref(),
            chmod: command.chmod.as_deref(),
            link: command.link,
            parents: command.parents,
            excludes: &command.excludes,
            add: None,
        }
    }

    pub(super) fn of_add(command: &'a AddCommand) -> Self {
        Self {
            files: &command.files,
            chown: command.chown.as_deref(),
            chmod: command.chmod.as_deref(),
            link: command.link,
            parents: false,
            excludes: &command.excludes,
            add: Some(AddFlags {
                keep_git_dir: command.keep_git_dir,
                checksum: command.checksum.as_deref(),
                unpack: command.unpack,
            }),
        }
    }
}

/// A plan with its words expanded.
struct Words {
    chown: String,
    chmod: String,
    checksum: String,
    paths: Vec<String>,
    files: Vec<(String, String)>,
    dest: String,
}

/// The actions of one COPY or ADD while they are collected.
struct Copies {
    /// What all actions have in common.
    template: CopyAction,
    /// `--chown`, expanded.
    chown: String,
    list: Vec<(Option<Output>, CopyAction)>,
}

impl Copies {
    fn add(&mut self, from: Option<Output>, action: CopyAction) {
        self.list.push((from, action));
    }
}

/// Lowers COPY or ADD; `source` is what `--from` names, without it the main context.
pub(super) fn copy(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    plan: &CopyPlan<'_>,
    source: Option<&Source>,
) -> Result<()> {
    let words = expand_words(context, stage, instruction, plan)?;
    let template = template(stage, plan, &words)?;
    let mut copies = Copies { template, chown: words.chown.clone(), list: Vec::new() };
    check_checksum(plan, &words)?;
    let text = step_text(&context.lexer, instruction.code(), &stage.state.env);
    let name = context.step_name(stage, &text, |stage| stage.platform.as_ref());
    add_sources(context, stage, instruction, plan, source, &words, &mut copies, &name)?;
    let variables = variables(context, stage, instruction, plan);
    for (file, data) in &words.files {
        let file = path::without_drive(file, stage.os(), false)?;
        let output =
            add_inline_file(&mut context.arena, &file, 0o644, data.clone().into_bytes(), variables.clone());
        let src = path::join("/", &path::to_slash(&file, stage.os()));
        let action = CopyAction { src, ..copies.template.clone() };
        copies.add(Some(output), action);
    }
    let meta = VertexMeta {
        description: described(&name, None),
        ignore_cache: stage.ignore_cache,
        locations: Context::location(instruction.lines),
        variables,
        ..VertexMeta::default()
    };
    if plan.link && words.chmod.is_empty() {
        link(context, stage, &copies, meta, &text, &name);
    } else {
        let base = stage.state.output;
        stage.state.output = Some(add_file_op(&mut context.arena, base, &copies, meta));
    }
    // The credentials of a URL are for fetching: they are not left in the image.
    commit(context, stage, redacted(&history(plan, &words)).into_owned(), true);
    note_used(stage, plan, source, &words);
    Ok(())
}

/// The variables that the instruction and its documents are expanded with.
fn variables(
    context: &Context<'_>,
    stage: &Stage<'_>,
    instruction: &Instruction,
    plan: &CopyPlan<'_>,
) -> Noted {
    let texts = plan.files.files.iter().filter(|file| file.expand).map(|file| file.data.as_str());
    let names =
        texts.chain([instruction.code()]).flat_map(|text| used(&context.lexer, text, &stage.state.env));
    stage.state.variables.of(&names.collect::<std::collections::BTreeSet<_>>())
}

fn expand_words(
    context: &mut Context<'_>,
    stage: &Stage<'_>,
    instruction: &Instruction,
    plan: &CopyPlan<'_>,
) -> Result<Words> {
    let mut word = |word: Option<&str>| match word {
        Some(word) => expand(context, stage, instruction, word),
        None => Ok(String::new()),
    };
    let chown = word(plan.chown)?;
    let chmod = word(plan.chmod)?;
    let checksum = word(plan.add.as_ref().and_then(|add| add.checksum))?;
    let paths = plan.files.paths.iter().map(|path| word(Some(path))).collect::<Result<_>>()?;
    let dest = word(Some(&plan.files.dest))?;
    let mut files = Vec::with_capacity(plan.files.files.len());
    for file in &plan.files.files {
        files.push((file.name.clone(), expand_data(context, stage, instruction, file)?));
    }
    Ok(Words { chown, chmod, checksum, paths, files, dest })
}

/// A heredoc's content: quotes stay, an escape is always a backslash.
fn expand_data(
    context: &mut Context<'_>,
    stage: &Stage<'_>,
    instruction: &Instruction,
    file: &InlineFile,
) -> Result<String> {
    if !file.expand {
        return Ok(file.data.clone());
    }
    let lexer = Lexer { skip_quotes: true, ..Lexer::new('\\') };
    let (expansion, error) = lexer.expand_noting(&file.data, &stage.state.env);
    report_unset(context, stage, instruction, &expansion);
    error.map_or(Ok(()), Err)?;
    Ok(expansion.text)
}

fn template(stage: &Stage<'_>, plan: &CopyPlan<'_>, words: &Words) -> Result<CopyAction> {
    let (mode, mode_str) = match words.chmod.as_str() {
        "" => (None, String::new()),
        chmod => parse_chmod(chmod).map_err(|fault| LowerError::word(fault, chmod))?,
    };
    Ok(CopyAction {
        dest: path::action_path(&stage.state.dir, &destination(stage, &words.dest)?, true),
        mode,
        mode_str,
        create_dest_path: true,
        exclude_patterns: plan.excludes.to_vec(),
        ..CopyAction::default()
    })
}

/// The destination, absolute; what it ends in stays.
fn destination(stage: &Stage<'_>, written: &str) -> Result<String> {
    let os = stage.os();
    let dest = path::without_drive(written, os, true)?;
    if path::is_absolute(&dest, os) {
        return Ok(path::normalize("/", &dest, os, true)?);
    }
    let dest = if dest == "." || dest.is_empty() { "./" } else { &dest };
    Ok(path::normalize(&stage.state.dir, dest, os, true)?)
}

fn check_checksum(plan: &CopyPlan<'_>, words: &Words) -> Result<()> {
    if words.checksum.is_empty() || plan.add.is_none() {
        return Ok(());
    }
    let [source] = &words.paths[..] else { return Err(Fault::ChecksumOfMany.into()) };
    match remote::kind(source) {
        Ok(Remote::None) => Err(Fault::ChecksumOfFile.into()),
        _ => Ok(()),
    }
}

#[expect(clippy::too_many_arguments, reason = "all of them are what one instruction is made of")]
fn add_sources(
    context: &mut Context<'_>,
    stage: &Stage<'_>,
    instruction: &Instruction,
    plan: &CopyPlan<'_>,
    source: Option<&Source>,
    words: &Words,
    copies: &mut Copies,
    name: &str,
) -> Result<()> {
    let mut flags = RemoteFlags {
        keep_git_dir: plan.add.as_ref().and_then(|add| add.keep_git_dir),
        checksum: words.checksum.clone(),
    };
    let unpack = plan.add.as_ref().and_then(|add| add.unpack);
    for written in &words.paths {
        match (remote::kind(written).map_err(|error| error.named(written))?, plan.add.is_some()) {
            (Remote::Git(_), false) => return Err(LowerError::word(Fault::CopyOfGit, written)),
            (Remote::Http, false) => return Err(LowerError::word(Fault::CopyOfUrl, written)),
            (Remote::Git(git), true) => {
                let output = remote::add_git(&mut context.arena, *git, &mut flags, name)?;
                let action = CopyAction { src: "/".to_owned(), ..copies.template.clone() };
                copies.add(Some(output), action);
            }
            (Remote::Http, true) => {
                let (output, file) = remote::add_http(&mut context.arena, written, &flags.checksum, name)?;
                let attempt_unpack = unpack.unwrap_or(false);
                let action =
                    CopyAction { src: path::join("/", &file), attempt_unpack, ..copies.template.clone() };
                copies.add(Some(output), action);
            }
            (Remote::None, _) => {
                if let (None, Some(matcher)) = (source, &context.ignore_matcher) {
                    let verb = if plan.add.is_some() { "Add" } else { "Copy" };
                    lint::ignored_source(&mut context.linter, instruction, verb, written, matcher);
                }
                let from = source.map_or(context.context, |source| source.output);
                let unpack = unpack.unwrap_or(plan.add.is_some());
                let action = local_copy(stage.os(), plan.parents, written, unpack, &copies.template)?;
                copies.add(from, action);
            }
        }
    }
    Ok(())
}

/// The action for a path or pattern of the context or a stage.
fn local_copy(
    os: &str,
    parents: bool,
    written: &str,
    unpack: bool,
    template: &CopyAction,
) -> Result<CopyAction> {
    let mut action = CopyAction {
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack: unpack,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..template.clone()
    };
    let mut src = written.to_owned();
    if parents {
        // The part before `/./` is not kept at the destination.
        let (pivot, pattern) = written.split_once("/./").unwrap_or(("/", written));
        let pattern = path::normalize("/", pattern, os, false)?;
        action.include_patterns = vec![pattern.strip_prefix('/').unwrap_or(&pattern).to_owned()];
        if !has_wildcards(pivot) && !has_wildcards(&pattern) {
            let required = path::clean(&format!("{pivot}/{pattern}"));
            action.required_paths = vec![path::normalize("/", &required, os, false)?];
        }
        pivot.clone_into(&mut src);
    }
    let src = path::normalize("/", &src, os, false)?;
    action.src = path::join("/", &path::clean(&src));
    Ok(action)
}

fn has_wildcards(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(ch) = chars.next() {
        match ch {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

/// Adds the copies as one operation over `base`.
fn add_file_op(arena: &mut Arena, base: Option<Output>, copies: &Copies, meta: VertexMeta) -> Output {
    let mut inputs = Inputs::default();
    let start = base.map_or(ActionInput::Scratch, |output| ActionInput::Vertex(inputs.add(arena, output)));
    let owner = (!copies.chown.is_empty()).then(|| owner(&copies.chown, start));
    let last = copies.list.len().saturating_sub(1);
    let mut actions = Vec::with_capacity(copies.list.len());
    for (index, (from, action)) in copies.list.iter().enumerate() {
        let secondary =
            from.map_or(ActionInput::Scratch, |output| ActionInput::Vertex(inputs.add(arena, output)));
        let action = CopyAction { owner: owner.clone(), ..action.clone() };
        actions.push(FileAction {
            input: if index == 0 { start } else { ActionInput::Action(index - 1) },
            secondary,
            output: (index == last).then_some(0),
            kind: FileActionKind::Copy(Box::new(action)),
        });
    }
    // BuildKit goes from the last action to the first.
    inputs.visit_in_order(base.into_iter().chain(copies.list.iter().rev().filter_map(|(from, _)| *from)));
    arena.add(NewOp { op: Op::File(FileOp { actions }), inputs, platform: None, meta })
}

/// `--link`: the files are put together apart from what is below, and merged with it.
fn link(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    copies: &Copies,
    meta: VertexMeta,
    text: &str,
    name: &str,
) {
    let group = |weak| {
        let id = format!("{}-{}", stage.label, stage.step);
        Some(ProgressGroup { id, name: name.to_owned(), weak })
    };
    let (weak, strong) = (group(true), group(false));
    let copy_meta = VertexMeta { progress_group: weak, ..meta.clone() };
    let files = add_file_op(&mut context.arena, None, copies, copy_meta);
    stage.step = stage.step.saturating_sub(1);
    let link_name = context.step_name(stage, &format!("LINK {text}"), |stage| stage.platform.as_ref());
    let Some(base) = stage.state.output else {
        stage.state.output = Some(files);
        return;
    };
    let mut inputs = Inputs::default();
    let merged = [base, files].map(|output| Some(inputs.push(&context.arena, output)));
    let meta = VertexMeta { description: described(&link_name, None), progress_group: strong, ..meta };
    let op = Op::Merge(MergeOp { inputs: merged.to_vec() });
    stage.state.output = Some(context.arena.add(NewOp { op, inputs, platform: None, meta }));
}

fn history(plan: &CopyPlan<'_>, words: &Words) -> String {
    let mut text = String::from(if plan.add.is_some() { "ADD" } else { "COPY" });
    if plan.parents {
        text += " --parents";
    }
    for (flag, value) in [("chown", &words.chown), ("chmod", &words.chmod)] {
        if !value.is_empty() {
            text += &format!(" --{flag}={value}");
        }
    }
    for path in &words.paths {
        text += &format!(" {path}");
    }
    for (file, _) in &words.files {
        text += &format!(" <<{file}");
    }
    text + &format!(" {} # buildkit", words.dest)
}

/// Notes which paths of the context or the stage were used.
fn note_used(stage: &mut Stage<'_>, plan: &CopyPlan<'_>, source: Option<&Source>, words: &Words) {
    let remote =
        |path: &str| plan.add.is_some() && (path.starts_with("http://") || path.starts_with("https://"));
    let used = words.paths.iter().filter(|path| !remote(path)).map(|used| path::join("/", used));
    match source {
        Some(source) => source.paths.borrow_mut().extend(used),
        None => stage.context_paths.extend(used),
    }
}
