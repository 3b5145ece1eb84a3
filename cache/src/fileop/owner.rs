//! Owners of what is made: ids, or names that an image's files explain.

use std::fs::File;
use std::io;

use solver::op::{ActionInput, ChownOpt, UserOpt};

use super::error::ActionError;
use super::jobs::open_guarded;
use super::source::Source;
use super::state::Owner;
use super::users::{find_group, find_user};
use crate::tree::{Kind, TreePath};

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// The owner that an option means; an unknown user is 0, an unknown group the user's.
pub(super) fn resolve_owner<'a>(
    option: Option<&ChownOpt>,
    source: &dyn Fn(ActionInput) -> Result<Source<'a>, ActionError>,
) -> Result<Option<Owner>, ActionError> {
    let Some(option) = option else { return Ok(None) };
    let (mut uid, mut gid) = match &option.user {
        Some(UserOpt::Id(id)) => (*id, *id),
        Some(UserOpt::Name { name, input }) => {
            look_up(*input, PASSWD, source, &|file| find_user(file, name))?.unwrap_or_default()
        }
        None => (0, 0),
    };
    match &option.group {
        Some(UserOpt::Id(id)) => gid = *id,
        Some(UserOpt::Name { name, input }) => {
            gid = look_up(*input, GROUP, source, &|file| find_group(file, name))?.unwrap_or(gid);
        }
        None => {}
    }
    // The largest id means "leave as it is" to the kernel.
    if uid == u32::MAX {
        uid = 0;
    }
    if gid == u32::MAX {
        gid = 0;
    }
    Ok(Some((uid, gid)))
}

fn look_up<'a, T>(
    input: ActionInput,
    name: &str,
    source: &dyn Fn(ActionInput) -> Result<Source<'a>, ActionError>,
    find: &dyn Fn(File) -> io::Result<Option<T>>,
) -> Result<Option<T>, ActionError> {
    if input == ActionInput::Scratch {
        return Err(ActionError::NoUserFile);
    }
    let source = source(input)?;
    let path: TreePath = source.resolve(name.as_bytes(), true)?;
    match source.get(&path)?.map(|node| node.kind) {
        None => Ok(None),
        Some(Kind::File { .. }) => {
            let file = open_guarded(&source, &path)?;
            find(file).map_err(|e| ActionError::Source { path, source: e })
        }
        Some(_) => Err(ActionError::OddUserFile(path)),
    }
}
