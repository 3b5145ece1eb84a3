//! mkfile, mkdir, rm and symlink.

use solver::op::{MkDirAction, MkFileAction, RmAction, SymlinkAction};

use super::env::FileOpEnv;
use super::error::ActionError;
use super::resolve::LlbPath;
use super::source::Source;
use super::state::{Owner, Target, new_meta};
use super::wildcard::resolve_wildcards;
use crate::layer::Meta;
use crate::tree::{Kind, TreePath};

/// LLB's mode -1 is all bits set; BuildKit masks it.
const PERMISSIONS: u32 = 0o777;

pub(super) fn mkfile(
    action: &MkFileAction,
    target: &Target,
    owner: Option<Owner>,
    env: &FileOpEnv<'_>,
) -> Result<(), ActionError> {
    let path = target.resolve(&TreePath::clean(action.path.as_bytes())?)?;
    target.check_parent("open", &path)?;
    let mode = action.mode.unwrap_or(PERMISSIONS) & PERMISSIONS;
    let fresh = new_meta(mode, owner, action.timestamp, env);
    let meta = match target.get(&path)? {
        Some(node) if node.is_dir() => return Err(ActionError::IsADirectory(path)),
        // Writing to an existing file changes neither its mode nor, by itself, its owner.
        Some(node) if matches!(node.kind, Kind::File { .. }) => {
            let (uid, gid) = owner.unwrap_or((node.uid, node.gid));
            Meta { mode: node.mode, uid, gid, ..fresh }
        }
        _ => fresh,
    };
    target.layer.write_file(&path, &meta, &action.data)?;
    env.progress.add(action.data.len() as u64);
    Ok(())
}

pub(super) fn mkdir(
    action: &MkDirAction,
    target: &Target,
    owner: Option<Owner>,
    env: &FileOpEnv<'_>,
) -> Result<(), ActionError> {
    let path = target.resolve(&TreePath::clean(action.path.as_bytes())?)?;
    let mode = action.mode.unwrap_or(PERMISSIONS) & PERMISSIONS;
    let meta = new_meta(mode, owner, action.timestamp, env);
    if action.make_parents {
        return target.mkdir_all(&path, &meta);
    }
    target.check_parent("mkdir", &path)?;
    match target.get(&path)? {
        Some(_) => Ok(()),
        None => Ok(target.layer.mkdir(&path, &meta)?),
    }
}

pub(super) fn symlink(
    action: &SymlinkAction,
    target: &Target,
    owner: Option<Owner>,
    env: &FileOpEnv<'_>,
) -> Result<(), ActionError> {
    let path = target.resolve(&TreePath::clean(action.newpath.as_bytes())?)?;
    target.check_parent("symlink", &path)?;
    if target.get(&path)?.is_some() {
        return Err(ActionError::Exists { action: "symlink", path });
    }
    let meta = new_meta(PERMISSIONS, owner, action.timestamp, env);
    Ok(target.layer.symlink(&path, action.oldpath.as_bytes(), &meta)?)
}

pub(super) fn rm(action: &RmAction, target: &Target) -> Result<(), ActionError> {
    if !action.allow_wildcard {
        return remove(&TreePath::clean(action.path.as_bytes())?, action.allow_not_found, target);
    }
    let path = LlbPath::new(&action.path)?;
    for found in resolve_wildcards(&Source::Built(&target.layer), &path.path, false)? {
        remove(&found, action.allow_not_found, target)?;
    }
    Ok(())
}

fn remove(path: &TreePath, allow_not_found: bool, target: &Target) -> Result<(), ActionError> {
    let Some(parent) = path.parent() else { return Err(ActionError::RemoveRoot) };
    let exact = target.resolve(&parent)?.join(path.name())?;
    // A link that leads nowhere counts as absent here, as for stat(2), but is removed all the same.
    if !allow_not_found && target.get(&target.resolve(&exact)?)?.is_none() {
        return Err(ActionError::NotFound { action: "stat", path: exact });
    }
    target.layer.remove(&exact)?;
    Ok(())
}
