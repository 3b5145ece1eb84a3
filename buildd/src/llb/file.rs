//! File ops.
//!
//! On the wire one index space holds the op's inputs and, after them, its actions; -1 is scratch.

use std::collections::HashSet;

use proto::pb;
use proto::pb::file_action::Action;
use solver::op::{
    ActionInput, ChownOpt, CopyAction, FileAction, FileActionKind, FileOp, MkDirAction, MkFileAction,
    RmAction, SymlinkAction, UserOpt,
};

use super::Invalid;
use super::decode::{bounded, output_index, text};
use super::encode::number;

/// What an index of an action may point at.
#[derive(Clone, Copy)]
struct Space {
    inputs: usize,
    /// Actions before this one.
    actions: usize,
}

impl Space {
    fn decode(self, index: i64) -> Result<ActionInput, Invalid> {
        let unknown = Invalid::Index { what: "input", index };
        if index == -1 {
            return Ok(ActionInput::Scratch);
        }
        let at = usize::try_from(index).map_err(|_| unknown.clone())?;
        match at.checked_sub(self.inputs) {
            None => Ok(ActionInput::Vertex(at)),
            Some(action) if action < self.actions => Ok(ActionInput::Action(action)),
            Some(_) => Err(unknown),
        }
    }

    fn encode(self, input: ActionInput) -> i64 {
        match input {
            ActionInput::Scratch => -1,
            ActionInput::Vertex(index) => index as i64,
            ActionInput::Action(index) => (self.inputs + index) as i64,
        }
    }
}

pub(super) fn decode_file(file: &pb::FileOp, inputs: usize) -> Result<FileOp, Invalid> {
    if file.actions.is_empty() {
        return Err(Invalid::Missing("actions"));
    }
    bounded("actions", file.actions.len())?;
    let mut outputs = HashSet::new();
    let mut actions = Vec::with_capacity(file.actions.len());
    for (index, action) in file.actions.iter().enumerate() {
        let space = Space { inputs, actions: index };
        let kind = decode_kind(action.action.as_ref().ok_or(Invalid::Missing("action"))?, space)?;
        let secondary = match &kind {
            FileActionKind::Copy(_) => space.decode(action.secondary_input)?,
            _ => ActionInput::Scratch,
        };
        let output = output_index(action.output, &mut outputs)?;
        actions.push(FileAction { input: space.decode(action.input)?, secondary, output, kind });
    }
    Ok(FileOp { actions })
}

fn decode_kind(action: &Action, space: Space) -> Result<FileActionKind, Invalid> {
    Ok(match action {
        Action::Copy(copy) => FileActionKind::Copy(Box::new(decode_copy(copy, space)?)),
        Action::Mkfile(file) => FileActionKind::MkFile(MkFileAction {
            path: path(&file.path)?,
            mode: mode(file.mode)?,
            data: file.data.to_vec(),
            owner: owner(file.owner.as_ref(), space)?,
            timestamp: timestamp(file.timestamp),
        }),
        Action::Mkdir(dir) => FileActionKind::MkDir(MkDirAction {
            path: path(&dir.path)?,
            mode: mode(dir.mode)?,
            make_parents: dir.make_parents,
            owner: owner(dir.owner.as_ref(), space)?,
            timestamp: timestamp(dir.timestamp),
        }),
        Action::Rm(rm) => FileActionKind::Rm(RmAction {
            path: path(&rm.path)?,
            allow_not_found: rm.allow_not_found,
            allow_wildcard: rm.allow_wildcard,
        }),
        Action::Symlink(link) => FileActionKind::Symlink(SymlinkAction {
            oldpath: path(&link.oldpath)?,
            newpath: path(&link.newpath)?,
            owner: owner(link.owner.as_ref(), space)?,
            timestamp: timestamp(link.timestamp),
        }),
    })
}

fn decode_copy(copy: &pb::FileActionCopy, space: Space) -> Result<CopyAction, Invalid> {
    let patterns = |list: &[String]| list.iter().map(|p| text("pattern", p)).collect::<Result<Vec<_>, _>>();
    Ok(CopyAction {
        src: path(&copy.src)?,
        dest: path(&copy.dest)?,
        owner: owner(copy.owner.as_ref(), space)?,
        mode: mode(copy.mode)?,
        mode_str: copy.mode_str.clone(),
        follow_symlink: copy.follow_symlink,
        dir_copy_contents: copy.dir_copy_contents,
        attempt_unpack: copy.attempt_unpack_docker_compatibility,
        create_dest_path: copy.create_dest_path,
        allow_wildcard: copy.allow_wildcard,
        allow_empty_wildcard: copy.allow_empty_wildcard,
        timestamp: timestamp(copy.timestamp),
        include_patterns: patterns(&copy.include_patterns)?,
        exclude_patterns: patterns(&copy.exclude_patterns)?,
        always_replace_existing_dest_paths: copy.always_replace_existing_dest_paths,
        required_paths: patterns(&copy.required_paths)?,
    })
}

fn path(path: &str) -> Result<String, Invalid> {
    text("path", path)
}

/// Permission bits; -1 keeps the source's.
fn mode(mode: i32) -> Result<Option<u32>, Invalid> {
    match mode {
        -1 => Ok(None),
        mode => match u32::try_from(mode) {
            Ok(bits) => Ok(Some(bits)),
            Err(_) => Err(Invalid::Range { what: "mode", value: mode.into() }),
        },
    }
}

/// Nanoseconds; -1 keeps the source's.
fn timestamp(nanos: i64) -> Option<i64> {
    (nanos != -1).then_some(nanos)
}

fn owner(owner: Option<&pb::ChownOpt>, space: Space) -> Result<Option<ChownOpt>, Invalid> {
    let half = |user: &Option<pb::UserOpt>| match user.as_ref().and_then(|user| user.user.as_ref()) {
        None => Ok(None),
        Some(pb::user_opt::User::ById(id)) => Ok(Some(UserOpt::Id(*id))),
        Some(pb::user_opt::User::ByName(named)) => Ok(Some(UserOpt::Name {
            name: text("user name", &named.name)?,
            input: space.decode(named.input)?,
        })),
    };
    let Some(owner) = owner else { return Ok(None) };
    Ok(Some(ChownOpt { user: half(&owner.user)?, group: half(&owner.group)? }))
}

pub(super) fn encode_file(file: &FileOp, inputs: usize) -> pb::FileOp {
    let encode = |(index, action): (usize, &FileAction)| {
        let space = Space { inputs, actions: index };
        pb::FileAction {
            input: space.encode(action.input),
            secondary_input: space.encode(action.secondary),
            output: number(action.output),
            action: Some(encode_kind(&action.kind, space)),
        }
    };
    pb::FileOp { actions: file.actions.iter().enumerate().map(encode).collect() }
}

fn encode_kind(kind: &FileActionKind, space: Space) -> Action {
    match kind {
        FileActionKind::Copy(copy) => Action::Copy(encode_copy(copy, space)),
        FileActionKind::MkFile(file) => Action::Mkfile(pb::FileActionMkFile {
            path: file.path.clone(),
            mode: wire_mode(file.mode),
            data: file.data.clone().into(),
            owner: wire_owner(file.owner.as_ref(), space),
            timestamp: file.timestamp.unwrap_or(-1),
        }),
        FileActionKind::MkDir(dir) => Action::Mkdir(pb::FileActionMkDir {
            path: dir.path.clone(),
            mode: wire_mode(dir.mode),
            make_parents: dir.make_parents,
            owner: wire_owner(dir.owner.as_ref(), space),
            timestamp: dir.timestamp.unwrap_or(-1),
        }),
        FileActionKind::Rm(rm) => Action::Rm(pb::FileActionRm {
            path: rm.path.clone(),
            allow_not_found: rm.allow_not_found,
            allow_wildcard: rm.allow_wildcard,
        }),
        FileActionKind::Symlink(link) => Action::Symlink(pb::FileActionSymlink {
            oldpath: link.oldpath.clone(),
            newpath: link.newpath.clone(),
            owner: wire_owner(link.owner.as_ref(), space),
            timestamp: link.timestamp.unwrap_or(-1),
        }),
    }
}

fn encode_copy(copy: &CopyAction, space: Space) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: copy.src.clone(),
        dest: copy.dest.clone(),
        owner: wire_owner(copy.owner.as_ref(), space),
        // Beside a symbolic mode LLB's clients say no number, which is written as 0.
        mode: if copy.mode_str.is_empty() { wire_mode(copy.mode) } else { 0 },
        follow_symlink: copy.follow_symlink,
        dir_copy_contents: copy.dir_copy_contents,
        attempt_unpack_docker_compatibility: copy.attempt_unpack,
        create_dest_path: copy.create_dest_path,
        allow_wildcard: copy.allow_wildcard,
        allow_empty_wildcard: copy.allow_empty_wildcard,
        timestamp: copy.timestamp.unwrap_or(-1),
        include_patterns: copy.include_patterns.clone(),
        exclude_patterns: copy.exclude_patterns.clone(),
        always_replace_existing_dest_paths: copy.always_replace_existing_dest_paths,
        mode_str: copy.mode_str.clone(),
        required_paths: copy.required_paths.clone(),
    }
}

fn wire_mode(mode: Option<u32>) -> i32 {
    mode.map_or(-1, |mode| mode as i32)
}

fn wire_owner(owner: Option<&ChownOpt>, space: Space) -> Option<pb::ChownOpt> {
    let half = |user: &UserOpt| {
        let user = match user {
            UserOpt::Id(id) => pb::user_opt::User::ById(*id),
            UserOpt::Name { name, input } => pb::user_opt::User::ByName(pb::NamedUserOpt {
                name: name.clone(),
                input: space.encode(*input),
            }),
        };
        pb::UserOpt { user: Some(user) }
    };
    owner.map(|owner| pb::ChownOpt {
        user: owner.user.as_ref().map(half),
        group: owner.group.as_ref().map(half),
    })
}
