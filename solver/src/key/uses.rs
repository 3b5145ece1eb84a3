//! Which part of each input an op can see, and so what of it counts.

use serde::{Deserialize, Serialize};

use super::fields::Writer;
use crate::digest::Hasher;
use crate::graph::Vertex;
use crate::op::{
    ActionInput, ChownOpt, CopyAction, DiffOp, FileAction, FileActionKind, FileOp, MergeOp, Mount, MountKind,
    Op, UserOpt,
};

/// How an op uses one of its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// All of it, hard links and significant times included: counts by its rootfs digest.
    Rootfs,
    /// All of it and the layers that it is made of: what a layer hides shows only when it is stacked on something else.
    Layers,
    /// Only these paths, without times: counts by the copy digest of the selection.
    Selected(Vec<Selection>),
}

/// What a copy or a read-only mount selects from an input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// Path or pattern; `/` is everything.
    pub path: String,
    /// A symlink at the path is followed.
    pub follow_symlink: bool,
    /// `path` may hold `*` and `?`.
    pub wildcard: bool,
    /// A pattern without a match is no error.
    pub allow_empty_wildcard: bool,
    /// Only these, relative to the path.
    pub include_patterns: Vec<String>,
    /// Not these, relative to the path.
    pub exclude_patterns: Vec<String>,
    /// Paths that have to exist.
    pub required_paths: Vec<String>,
}

/// How a vertex uses each of its inputs, in their order.
///
/// An input that the op never mentions counts whole: a wrong miss is better than a wrong hit.
pub fn input_uses(vertex: &Vertex) -> Vec<Use> {
    let mut uses: Vec<Option<Use>> = vec![None; vertex.inputs.len()];
    match &vertex.op {
        Op::Exec(e) => e.mounts_by_dest().iter().for_each(|m| of_mount(&mut uses, m)),
        Op::File(f) => of_file(&mut uses, f),
        Op::Merge(MergeOp { inputs }) => {
            // Nothing lies below the lowest, so its layers hide nothing.
            inputs.iter().flatten().skip(1).for_each(|i| add(&mut uses, *i, Use::Layers));
        }
        Op::Diff(DiffOp { lower, upper }) => {
            [lower, upper].into_iter().flatten().for_each(|i| add(&mut uses, *i, Use::Layers));
        }
        Op::Source(_) | Op::Build(_) | Op::Passthrough(_) => {}
    }
    uses.into_iter().map(|u| u.unwrap_or(Use::Rootfs)).collect()
}

/// Hashes what a selection is of its input: its number among the selections whose content the key holds, or, where
/// the whole input counts, its path.
pub(super) fn hash_selection(h: &mut Writer, used: Option<&Use>, selection: &Selection) {
    match used {
        Some(Use::Selected(list)) => h.i64(list.iter().position(|s| s == selection).map_or(-1, |i| i as i64)),
        Some(Use::Rootfs | Use::Layers) | None => h.str(&selection.path),
    };
}

/// Hashes a use as it stands in a definition key, where no content is known yet.
pub(super) fn hash_use(h: &mut Hasher, used: &Use) {
    let list = match used {
        Use::Rootfs | Use::Layers => &[][..],
        Use::Selected(list) => list,
    };
    h.u64(list.len() as u64);
    for selection in list {
        let Selection {
            path,
            follow_symlink,
            wildcard,
            allow_empty_wildcard,
            include_patterns,
            exclude_patterns,
            required_paths,
        } = selection;
        h.str(path).bool(*follow_symlink).bool(*wildcard).bool(*allow_empty_wildcard);
        h.strs(include_patterns).strs(exclude_patterns).strs(required_paths);
    }
}

/// What a bind mount shows of its input.
pub(super) fn selection_of_mount(m: &Mount) -> Selection {
    let path = if m.selector.is_empty() { "/" } else { &m.selector };
    Selection { path: path.to_owned(), follow_symlink: true, ..Selection::default() }
}

/// What a copy takes from its secondary input.
pub(super) fn selection_of_copy(c: &CopyAction) -> Selection {
    Selection {
        path: c.src.clone(),
        follow_symlink: c.follow_symlink,
        wildcard: c.allow_wildcard,
        allow_empty_wildcard: c.allow_empty_wildcard,
        include_patterns: c.include_patterns.clone(),
        exclude_patterns: c.exclude_patterns.clone(),
        required_paths: c.required_paths.clone(),
    }
}

fn of_mount(uses: &mut [Option<Use>], m: &Mount) {
    let Some(i) = m.input else { return };
    if matches!(m.kind, MountKind::Secret(_) | MountKind::Ssh(_) | MountKind::Tmpfs { .. }) {
        return;
    }
    // A mount whose changes live on is more than what is selected now: files beside the selection reach the result.
    if m.dest == "/" || (m.output.is_some() && !m.readonly) {
        return add(uses, i, Use::Rootfs);
    }
    add(uses, i, Use::Selected(vec![selection_of_mount(m)]));
}

fn of_file(uses: &mut [Option<Use>], op: &FileOp) {
    for FileAction { input, secondary, kind, .. } in &op.actions {
        if let ActionInput::Vertex(i) = input {
            add(uses, *i, Use::Rootfs);
        }
        let owner = match kind {
            FileActionKind::Copy(c) => {
                if let ActionInput::Vertex(i) = secondary {
                    add(uses, *i, Use::Selected(vec![selection_of_copy(c)]));
                }
                &c.owner
            }
            FileActionKind::MkFile(f) => &f.owner,
            FileActionKind::MkDir(d) => &d.owner,
            FileActionKind::Symlink(s) => &s.owner,
            FileActionKind::Rm(_) => &None,
        };
        of_owner(uses, owner.as_ref());
    }
}

fn of_owner(uses: &mut [Option<Use>], owner: Option<&ChownOpt>) {
    let Some(ChownOpt { user, group }) = owner else { return };
    for (who, file) in [(user, "/etc/passwd"), (group, "/etc/group")] {
        if let Some(UserOpt::Name { input: ActionInput::Vertex(i), .. }) = who {
            // Absence is no error here: then the name resolves to nobody.
            let path = Selection {
                path: file.to_owned(),
                follow_symlink: true,
                wildcard: true,
                allow_empty_wildcard: true,
                ..Selection::default()
            };
            add(uses, *i, Use::Selected(vec![path]));
        }
    }
}

/// Widens the use of an input by another one.
fn add(uses: &mut [Option<Use>], input: usize, more: Use) {
    let Some(slot) = uses.get_mut(input) else { return };
    match (slot.as_mut(), more) {
        (Some(Use::Layers), _) | (Some(Use::Rootfs), Use::Rootfs | Use::Selected(_)) => {}
        (Some(Use::Selected(list)), Use::Selected(more)) => {
            for selection in more {
                if !list.contains(&selection) {
                    list.push(selection);
                }
            }
        }
        (_, more) => *slot = Some(more),
    }
}
