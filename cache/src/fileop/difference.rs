//! How what is selected differs between two trees: which files, and by what.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use solver::Selection;

use super::error::ActionError;
use super::filters::{Above, Filters};
use super::resolve::LlbPath;
use super::source::Source;
use super::wildcard::resolve_wildcards;
use crate::layer::Change;
use crate::pattern::has_wildcards;
use crate::tree::{Kind, Node, NodeId, TreePath, Trees};

/// One way in which one object differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where it is in the trees.
    pub path: TreePath,
    /// By what.
    pub by: DifferentBy,
    /// What it was; `None` where it was not there.
    pub old: Option<String>,
    /// What it is; `None` where it is not there.
    pub new: Option<String>,
}

/// By what an object differs, where what a copy sees of it counts: never by times or hard links. Scripts rely on the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferentBy {
    /// Its bytes, told as their BLAKE3 digest, or a link's target.
    Content,
    /// Its permissions, in octal.
    Mode,
    /// User and group.
    Owner,
    /// Extended attributes.
    Attributes,
    /// What kind of object it is.
    Type,
    /// It came.
    Added,
    /// It went.
    Removed,
}

/// How what `selections` take of the tree `new` differs from what they take of `old`, in walk order; equal subtrees are not entered.
/// A directory that went is one difference, of one that came each file is.
///
/// # Errors
/// Malformed patterns; a tree that cannot be read.
pub fn differences(
    trees: &Trees,
    old: &NodeId,
    new: &NodeId,
    selections: &[Selection],
) -> Result<Vec<Difference>, ActionError> {
    if old == new {
        return Ok(Vec::new());
    }
    let taken = selections.iter().map(|s| Taken::new(trees, [old, new], s)).collect::<Result<Vec<_>, _>>()?;
    let mut found = Vec::new();
    for (path, change) in trees.diff(old, new)? {
        if !taken.iter().any(|taken| taken.takes(&path)) {
            continue;
        }
        let new = match change {
            Change::Put { node, .. } => Some(node),
            Change::Whiteout => None,
        };
        compare(&path, trees.get(old, &path)?.as_ref(), new.as_ref(), &mut found);
    }
    Ok(without_parents(found))
}

/// What one selection takes: these paths of either tree and all below them, as far as the filters let it.
struct Taken {
    paths: BTreeSet<TreePath>,
    filters: Filters,
}

impl Taken {
    fn new(trees: &Trees, roots: [&NodeId; 2], selection: &Selection) -> Result<Self, ActionError> {
        let path = LlbPath::new(&selection.path)?.path;
        let mut paths = BTreeSet::new();
        for root in roots {
            let source = Source::Tree(trees, root);
            let matches = match selection.wildcard && has_wildcards(path.as_bytes()) {
                true => resolve_wildcards(&source, &path, selection.follow_symlink),
                false => Ok(vec![path.clone()]),
            };
            let matches = match matches {
                Err(ActionError::NotFound { .. }) => Vec::new(),
                matches => matches?,
            };
            for path in matches {
                paths.insert(source.resolve(path.as_bytes(), selection.follow_symlink)?);
                // Where a link takes the place of something else, that counts itself.
                paths.insert(path);
            }
        }
        let filters = Filters::new(&selection.include_patterns, &selection.exclude_patterns)?;
        Ok(Self { paths, filters })
    }

    fn takes(&self, path: &TreePath) -> bool {
        let below = self.paths.iter().filter_map(|base| path.strip_prefix(base));
        below
            .into_iter()
            .any(|relative| relative.is_root() || self.filters.take_all() || self.judge(&relative))
    }

    fn judge(&self, relative: &TreePath) -> bool {
        let (mut above, mut at, mut takes) = (Above::default(), TreePath::root(), false);
        for name in relative.components() {
            at = at.child(name);
            let verdict = self.filters.judge(at.as_bytes(), &above);
            takes = verdict.takes();
            above = verdict.below;
        }
        takes
    }
}

fn compare(path: &TreePath, old: Option<&Node>, new: Option<&Node>, found: &mut Vec<Difference>) {
    let mut add = |by, old: Option<String>, new: Option<String>| {
        found.push(Difference { path: path.clone(), by, old, new });
    };
    let (old, new) = match (old, new) {
        (None, None) => return,
        (Some(old), None) => return add(DifferentBy::Removed, Some(shown(&old.kind)), None),
        (None, Some(new)) => return add(DifferentBy::Added, None, Some(shown(&new.kind))),
        (Some(old), Some(new)) => (old, new),
    };
    if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) {
        return add(DifferentBy::Type, Some(shown(&old.kind)), Some(shown(&new.kind)));
    }
    if old.kind != new.kind {
        add(DifferentBy::Content, Some(shown(&old.kind)), Some(shown(&new.kind)));
    }
    if old.mode != new.mode {
        add(DifferentBy::Mode, Some(format!("{:04o}", old.mode)), Some(format!("{:04o}", new.mode)));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        let owner = |node: &Node| Some(format!("{}:{}", node.uid, node.gid));
        add(DifferentBy::Owner, owner(old), owner(new));
    }
    if old.xattrs != new.xattrs {
        add(DifferentBy::Attributes, None, None);
    }
}

fn shown(kind: &Kind) -> String {
    match kind {
        Kind::File { content, .. } => format!("{content:?}"),
        Kind::Dir => "directory".to_owned(),
        Kind::Symlink { target } => format!("link to {}", String::from_utf8_lossy(target)),
        Kind::CharDevice { major, minor } => format!("character device {major}:{minor}"),
        Kind::BlockDevice { major, minor } => format!("block device {major}:{minor}"),
        Kind::Fifo => "pipe".to_owned(),
        Kind::Socket => "socket".to_owned(),
    }
}

/// Leaves out directories that came where what came in them is told.
fn without_parents(found: Vec<Difference>) -> Vec<Difference> {
    let told: Vec<bool> = found
        .iter()
        .enumerate()
        .map(|(i, difference)| {
            let is_parent = found.get(i + 1).is_some_and(|next| next.path.starts_with(&difference.path));
            let came = difference.by == DifferentBy::Added && difference.new.as_deref() == Some("directory");
            !(came && is_parent)
        })
        .collect();
    found.into_iter().zip(told).filter(|(_, told)| *told).map(|(difference, _)| difference).collect()
}
