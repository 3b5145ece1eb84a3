//! The counted fields of a file op.

use super::fields::Writer;
use super::index;
use super::uses::{Use, hash_selection, selection_of_copy};
use crate::op::{
    ActionInput, ChownOpt, CopyAction, FileAction, FileActionKind, FileOp, MkDirAction, MkFileAction,
    RmAction, SymlinkAction, UserOpt,
};

pub(super) fn hash(h: &mut Writer, op: &FileOp, uses: &[Use]) {
    let FileOp { actions } = op;
    h.between().u64(actions.len() as u64);
    for (i, FileAction { input, secondary, output, kind }) in actions.iter().enumerate() {
        h.field(|| Some(format!("{i}.place")));
        action_input(h, *input);
        action_input(h, *secondary);
        index(h, *output);
        match kind {
            FileActionKind::Copy(c) => {
                copy(h, i, c);
                h.field(|| Some(format!("{i}.source")));
                if let ActionInput::Vertex(from) = secondary {
                    hash_selection(h, uses.get(*from), &selection_of_copy(c));
                }
            }
            FileActionKind::MkFile(f) => mkfile(h, i, f),
            FileActionKind::MkDir(MkDirAction { path, mode, make_parents, owner: o, timestamp }) => {
                h.field(|| Some(format!("{i}.path"))).str("mkdir").str(path).bool(*make_parents);
                bits(h, *mode);
                owner(h, i, o.as_ref());
                time(h, i, *timestamp);
            }
            FileActionKind::Rm(RmAction { path, allow_not_found, allow_wildcard }) => {
                h.field(|| Some(format!("{i}.path")))
                    .str("rm")
                    .str(path)
                    .bool(*allow_not_found)
                    .bool(*allow_wildcard);
            }
            FileActionKind::Symlink(SymlinkAction { oldpath, newpath, owner: o, timestamp }) => {
                h.field(|| Some(format!("{i}.path"))).str("symlink").str(oldpath).str(newpath);
                owner(h, i, o.as_ref());
                time(h, i, *timestamp);
            }
        }
    }
}

fn mkfile(h: &mut Writer, i: usize, f: &MkFileAction) {
    let MkFileAction { path, mode, data, owner: o, timestamp } = f;
    h.field(|| Some(format!("{i}.path"))).str("mkfile").str(path);
    h.field(|| Some(format!("{i}.data"))).bytes(data);
    h.field(|| Some(format!("{i}.chmod")));
    bits(h, *mode);
    owner(h, i, o.as_ref());
    time(h, i, *timestamp);
}

fn copy(h: &mut Writer, i: usize, c: &CopyAction) {
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
    h.field(|| Some(format!("{i}.source"))).str("copy").str(base_name(src));
    h.field(|| Some(format!("{i}.path"))).str(dest);
    owner(h, i, o.as_ref());
    h.field(|| Some(format!("{i}.chmod")));
    bits(h, *mode);
    h.str(mode_str)
        .field(|| Some(format!("{i}.options")))
        .bool(*follow_symlink)
        .bool(*dir_copy_contents)
        .bool(*attempt_unpack)
        .bool(*create_dest_path)
        .bool(*allow_wildcard)
        .bool(*allow_empty_wildcard);
    time(h, i, *timestamp);
    h.field(|| Some(format!("{i}.patterns")))
        .strs(include_patterns)
        .strs(exclude_patterns)
        .bool(*always_replace_existing_dest_paths)
        .strs(required_paths);
}

fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or("")
}

fn action_input(h: &mut Writer, i: ActionInput) {
    match i {
        ActionInput::Scratch => h.i64(-1),
        ActionInput::Vertex(n) => h.str("v").u64(n as u64),
        ActionInput::Action(n) => h.str("a").u64(n as u64),
    };
}

fn bits(h: &mut Writer, mode: Option<u32>) {
    h.i64(mode.map_or(-1, Into::into));
}

fn time(h: &mut Writer, i: usize, t: Option<i64>) {
    h.field(|| Some(format!("{i}.time"))).bool(t.is_some()).i64(t.unwrap_or_default());
}

fn owner(h: &mut Writer, i: usize, owner: Option<&ChownOpt>) {
    h.field(|| Some(format!("{i}.chown")));
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
