//! What a vertex is called in progress.

use proto::pb;
use solver::graph::ProgressGroup;
use solver::op::FileActionKind;
use solver::{Op, Vertex};

/// The name that the vertex was given, else what it does in BuildKit's words.
pub fn vertex_name(vertex: &Vertex) -> String {
    if let Some(name) = vertex.meta.custom_name() {
        return name.to_owned();
    }
    match &vertex.op {
        Op::Source(source) => source.identifier.clone(),
        Op::Exec(exec) => exec.meta.args.join(" "),
        Op::File(file) => {
            file.actions.iter().map(|action| action_name(&action.kind)).collect::<Vec<_>>().join(", ")
        }
        Op::Merge(_) => "merge".to_owned(),
        Op::Diff(_) => "diff".to_owned(),
        Op::Build(_) => "build".to_owned(),
        Op::Passthrough(pass) => format!("passthrough {}", pass.id),
    }
}

/// The wire form of a group.
pub fn progress_group(group: &ProgressGroup) -> pb::ProgressGroup {
    pb::ProgressGroup { id: group.id.clone(), name: group.name.clone(), weak: group.weak }
}

fn action_name(kind: &FileActionKind) -> String {
    match kind {
        FileActionKind::Copy(copy) => format!("copy {} {}", copy.src, copy.dest),
        FileActionKind::MkFile(file) => format!("mkfile {}", file.path),
        FileActionKind::MkDir(dir) => format!("mkdir {}", dir.path),
        FileActionKind::Rm(rm) => format!("rm {}", rm.path),
        FileActionKind::Symlink(link) => format!("symlink {} -> {}", link.newpath, link.oldpath),
    }
}
