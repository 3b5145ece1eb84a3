//! The counted fields of a file op.

use super::index;
use super::uses::{Use, hash_selection, selection_of_copy};
use crate::digest::Hasher;
use crate::op::{
    ActionInput, ChownOpt, CopyAction, FileAction, FileActionKind, FileOp, MkDirAction, MkFileAction,
    RmAction, SymlinkAction, UserOpt,
};

pub(super) fn hash(h: &mut Hasher, op: &FileOp, uses: &[Use]) {
    let FileOp { actions } = op;
    h.u64(actions.len() as u64);
    for FileAction { input, secondary, output, kind } in actions {
        action_input(h, *input);
        action_input(h, *secondary);
        index(h, *output);
        match kind {
            FileActionKind::Copy(c) => {
                copy(h, c);
                if let ActionInput::Vertex(i) = secondary {
                    hash_selection(h, uses.get(*i), &selection_of_copy(c));
                }
            }
            FileActionKind::MkFile(f) => mkfile(h, f),
            FileActionKind::MkDir(MkDirAction { path, mode, make_parents, owner: o, timestamp }) => {
                h.str("mkdir").str(path).bool(*make_parents);
                bits(h, *mode);
                owner(h, o.as_ref());
                time(h, *timestamp);
            }
            FileActionKind::Rm(RmAction { path, allow_not_found, allow_wildcard }) => {
                h.str("rm").str(path).bool(*allow_not_found).bool(*allow_wildcard);
            }
            FileActionKind::Symlink(SymlinkAction { oldpath, newpath, owner: o, timestamp }) => {
                h.str("symlink").str(oldpath).str(newpath);
                owner(h, o.as_ref());
                time(h, *timestamp);
            }
        }
    }
}

fn mkfile(h: &mut Hasher, f: &MkFileAction) {
    let MkFileAction { path, mode, data, owner: o, timestamp } = f;
    h.str("mkfile").str(path).bytes(data);
    bits(h, *mode);
    owner(h, o.as_ref());
    time(h, *timestamp);
}

fn copy(h: &mut Hasher, c: &CopyAction) {
    let CopyAction {
        src,
        dest,
        owner: o,
        mode,
        mode_str,
        follow_symlink,
        dir_copy_contents,
        attempt_unpack,
        create_dest_path,
        allow_wildcard,
        allow_empty_wildcard,
        timestamp,
        include_patterns,
        exclude_patterns,
        always_replace_existing_dest_paths,
        required_paths,
    } = c;
    // Only the last name of the source, which may become the copy's. Where in the input it stands: see `hash_selection`.
    h.str("copy").str(base_name(src)).str(dest);
    owner(h, o.as_ref());
    bits(h, *mode);
    h.str(mode_str)
        .bool(*follow_symlink)
        .bool(*dir_copy_contents)
        .bool(*attempt_unpack)
        .bool(*create_dest_path)
        .bool(*allow_wildcard)
        .bool(*allow_empty_wildcard);
    time(h, *timestamp);
    h.strs(include_patterns)
        .strs(exclude_patterns)
        .bool(*always_replace_existing_dest_paths)
        .strs(required_paths);
}

fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or("")
}

fn action_input(h: &mut Hasher, i: ActionInput) {
    match i {
        ActionInput::Scratch => h.i64(-1),
        ActionInput::Vertex(n) => h.str("v").u64(n as u64),
        ActionInput::Action(n) => h.str("a").u64(n as u64),
    };
}

fn bits(h: &mut Hasher, mode: Option<u32>) {
    h.i64(mode.map_or(-1, Into::into));
}

fn time(h: &mut Hasher, t: Option<i64>) {
    h.bool(t.is_some()).i64(t.unwrap_or_default());
}

fn owner(h: &mut Hasher, owner: Option<&ChownOpt>) {
    let Some(ChownOpt { user, group }) = owner else {
        h.str("keep");
        return;
    };
    for who in [user, group] {
        match who {
            None => {
                h.str("none");
            }
            Some(UserOpt::Id(id)) => {
                h.str("id").u64((*id).into());
            }
            Some(UserOpt::Name { name, input }) => {
                h.str("name").str(name);
                action_input(h, *input);
            }
        }
    }
}
