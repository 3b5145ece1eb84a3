//! The copy action: which sources, to which destination.

use solver::op::CopyAction;

use super::archive::unpack;
use super::env::FileOpEnv;
use super::error::ActionError;
use super::filters::Filters;
use super::mode::ModeChange;
use super::resolve::LlbPath;
use super::source::Source;
use super::state::{Owner, Target, new_meta};
use super::tree_copy::{ModeRule, Options, TreeCopy};
use super::wildcard::resolve_wildcards;
use crate::layer::Meta;
use crate::tree::TreePath;

/// Mode of directories made on the way, unless an octal mode is given.
const PARENT_MODE: u32 = 0o755;

/// Runs a copy action.
pub(super) fn copy(
    action: &CopyAction,
    source: Source<'_>,
    target: &Target,
    owner: Option<Owner>,
    env: &FileOpEnv<'_>,
) -> Result<(), ActionError> {
    let (src, dest) = (LlbPath::new(&action.src)?, LlbPath::new(&action.dest)?);
    if !action.create_dest_path {
        target.check_parent("lstat", &target.resolve(&dest.path)?)?;
    }
    let sources = match action.allow_wildcard {
        true => resolve_wildcards(&source, &src.path, action.follow_symlink)?,
        false => vec![src.path.clone()],
    };
    if sources.is_empty() && !action.allow_empty_wildcard {
        return Err(ActionError::NoMatch { pattern: src.shown() });
    }
    let options = options(action, owner)?;
    for from in sources {
        let parents = Meta { mode: PARENT_MODE, ..new_meta(0, owner, action.timestamp, env) };
        if action.attempt_unpack && unpack(&source, &from, target, &dest.path, &parents, owner, env)? {
            continue;
        }
        copy_one(action, &options, &source, &from, target, &dest, env)?;
    }
    Ok(())
}

fn options(action: &CopyAction, owner: Option<Owner>) -> Result<Options, ActionError> {
    let mode = match (&*action.mode_str, action.mode) {
        ("", Some(mode)) => ModeRule::Set(mode & 0o7777),
        ("", None) => ModeRule::Keep,
        (symbolic, _) => ModeRule::Change(ModeChange::parse(symbolic)?),
    };
    Ok(Options {
        owner,
        mode,
        mtime: action.timestamp,
        filters: Filters::new(&action.include_patterns, &action.exclude_patterns)?,
        always_replace: action.always_replace_existing_dest_paths,
    })
}

/// Copies one source: makes the directories on the way, finds the final name, copies the tree.
fn copy_one(
    action: &CopyAction,
    options: &Options,
    source: &Source<'_>,
    from: &TreePath,
    target: &Target,
    dest: &LlbPath,
    env: &FileOpEnv<'_>,
) -> Result<(), ActionError> {
    let parent_mode = match options.mode {
        ModeRule::Set(mode) => mode & 0o777,
        _ => PARENT_MODE,
    };
    let parents = new_meta(parent_mode, options.owner, options.mtime, env);
    let ensured = if dest.is_dir { dest.path.clone() } else { dest.path.parent().unwrap_or_default() };
    target.mkdir_all(&target.resolve(&ensured)?, &parents)?;

    let real = source.resolve(from.as_bytes(), action.follow_symlink)?;
    let missing = || ActionError::NotFound { action: "lstat", path: from.clone() };
    let node = source.get(&real)?.ok_or_else(missing)?;
    let mut to = target.resolve(&dest.path)?;
    let existing = target.get(&to)?;
    let onto_dir = existing.as_ref().is_some_and(|node| node.is_dir());
    let goes_inside = match node.is_dir() {
        true => !action.dir_copy_contents && existing.is_some(),
        false => onto_dir,
    };
    if goes_inside {
        // The name is the source's as written, though what it leads to is copied.
        to = if from.is_root() { to } else { to.join(from.name())? };
    }
    let made = match action.dir_copy_contents && node.is_dir() && existing.is_none() {
        true => to.clone(),
        false => to.parent().unwrap_or_default(),
    };
    target.mkdir_all(&made, &parents)?;
    TreeCopy::new(source, target, options, env).copy(real, node, to)
}
