//! Which part of each input an op can see, and so what of it counts.

use crate::graph::Vertex;
use crate::op::{ActionInput, ChownOpt, FileAction, FileActionKind, FileOp, Mount, MountKind, Op, UserOpt};

/// How an op uses one of its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// All of it, hard links and significant times included: counts by its rootfs digest.
    Rootfs,
    /// Only these paths, without times: counts by the copy digest of the selection.
    Selected(Vec<Selection>),
}

/// What a copy or a read-only mount selects from an input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
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
        Op::Exec(e) => e.mounts.iter().for_each(|m| of_mount(&mut uses, m)),
        Op::File(f) => of_file(&mut uses, f),
        Op::Source(_) | Op::Merge(_) | Op::Diff(_) | Op::Build(_) | Op::Passthrough(_) => {}
    }
    uses.into_iter().map(|u| u.unwrap_or(Use::Rootfs)).collect()
}

fn of_mount(uses: &mut [Option<Use>], m: &Mount) {
    let Some(i) = m.input else { return };
    if matches!(m.kind, MountKind::Secret(_) | MountKind::Ssh(_) | MountKind::Tmpfs { .. }) {
        return;
    }
    // A mount whose changes live on is more than what is selected now: files beside the selection reach the result.
    if m.dest == "/" || (m.output.is_some() && !m.readonly) {
        return add(uses, i, None);
    }
    let path = if m.selector.is_empty() { "/" } else { &m.selector };
    add(uses, i, Some(Selection { path: path.to_owned(), follow_symlink: true, ..Selection::default() }));
}

fn of_file(uses: &mut [Option<Use>], op: &FileOp) {
    for FileAction { input, secondary, kind, .. } in &op.actions {
        if let ActionInput::Vertex(i) = input {
            add(uses, *i, None);
        }
        let owner = match kind {
            FileActionKind::Copy(c) => {
                if let ActionInput::Vertex(i) = secondary {
                    let selection = Selection {
                        path: c.src.clone(),
                        follow_symlink: c.follow_symlink,
                        wildcard: c.allow_wildcard,
                        allow_empty_wildcard: c.allow_empty_wildcard,
                        include_patterns: c.include_patterns.clone(),
                        exclude_patterns: c.exclude_patterns.clone(),
                        required_paths: c.required_paths.clone(),
                    };
                    add(uses, *i, Some(selection));
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
            add(uses, *i, Some(path));
        }
    }
}

fn add(uses: &mut [Option<Use>], input: usize, selection: Option<Selection>) {
    let Some(slot) = uses.get_mut(input) else { return };
    match (slot.as_mut(), selection) {
        (Some(Use::Rootfs), _) => {}
        (_, None) => *slot = Some(Use::Rootfs),
        (Some(Use::Selected(list)), Some(s)) => {
            if !list.contains(&s) {
                list.push(s);
            }
        }
        (None, Some(s)) => *slot = Some(Use::Selected(vec![s])),
    }
}
