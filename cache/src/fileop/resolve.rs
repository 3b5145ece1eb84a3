//! Paths within a root, as continuity's `fs.RootPath` resolves them: links are followed, nothing leaves the root,
//! and what does not exist (or is no directory) is passed over by its name.

use super::error::ActionError;
use crate::tree::{Node, TreePath};

/// As many links as continuity follows.
const MAX_LINKS: usize = 255;

/// What looks paths up, exactly.
pub(super) type Lookup<'a> = &'a dyn Fn(&TreePath) -> Result<Option<Node>, ActionError>;

/// Resolves `path` below `root`, a last link too. The result starts with `root`.
pub(super) fn root_path(lookup: Lookup<'_>, root: &TreePath, path: &[u8]) -> Result<TreePath, ActionError> {
    resolve(lookup, root, path, true)
}

/// Resolves all but the last component.
pub(super) fn parent_path(lookup: Lookup<'_>, root: &TreePath, path: &[u8]) -> Result<TreePath, ActionError> {
    resolve(lookup, root, path, false)
}

fn resolve(lookup: Lookup<'_>, root: &TreePath, path: &[u8], last: bool) -> Result<TreePath, ActionError> {
    // Innermost component last: what is still to be done, as a stack.
    let mut todo: Vec<Vec<u8>> = components(path).rev().collect();
    let mut done = root.clone();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            if done != *root {
                done = done.parent().unwrap_or_default();
            }
            continue;
        }
        let next = done.join(&name)?;
        if !last && todo.is_empty() {
            return Ok(next);
        }
        let target = lookup(&next)?.and_then(|node| node.link_target().map(<[u8]>::to_vec));
        let Some(target) = target else {
            done = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(ActionError::TooManyLinks(path.to_vec()));
        }
        if target.starts_with(b"/") {
            done = root.clone();
        }
        todo.extend(components(&target).rev());
    }
    Ok(done)
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|&b| b == b'/').filter(|name| !matches!(*name, b"" | b".")).map(<[u8]>::to_vec)
}

/// A path of LLB: made absolute and clean; a trailing `/` or `/.` is told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LlbPath {
    /// Clean, without the ending.
    pub(super) path: TreePath,
    /// Whether it was written with a trailing `/` or `/.`, that is, means a directory.
    pub(super) is_dir: bool,
}

impl LlbPath {
    pub(super) fn new(text: &str) -> Result<Self, ActionError> {
        let path = TreePath::clean(text.as_bytes())?;
        let is_dir = path.is_root() || text.ends_with('/') || text.ends_with("/.");
        Ok(Self { path, is_dir })
    }

    /// As a user would write it: absolute, with a slash at the end where it had one.
    pub(super) fn shown(&self) -> String {
        let slash = if self.is_dir && !self.path.is_root() { "/" } else { "" };
        format!("/{}{slash}", String::from_utf8_lossy(self.path.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Kind;

    #[test]
    fn stays_in_the_root_and_passes_over_what_is_missing() {
        let link = |target: &str| Node {
            kind: Kind::Symlink { target: target.as_bytes().into() },
            ..Node::plain_dir()
        };
        let lookup = |path: &TreePath| {
            Ok(match path.as_bytes() {
                b"a/up" => Some(link("../../../out")),
                b"abs" => Some(link("/../../top")),
                b"in/abs" => Some(link("/x")),
                b"loop" => Some(link("loop")),
                _ => None,
            })
        };
        let root = TreePath::root();
        let below = TreePath::parse(b"in").unwrap();
        for (root, path, want) in [
            (&root, "/a/up/f", "out/f"),
            (&root, "abs", "top"),
            (&root, "missing/../x", "x"),
            (&root, "../../etc", "etc"),
            (&below, "/abs/y", "in/x/y"),
            (&below, "../../a", "in/a"),
        ] {
            let got = root_path(&lookup, root, path.as_bytes()).unwrap();
            assert_eq!(got.as_bytes(), want.as_bytes(), "{path}");
        }
        assert_eq!(parent_path(&lookup, &root, b"a/up").unwrap().as_bytes(), b"a/up");
        assert!(matches!(root_path(&lookup, &root, b"loop"), Err(ActionError::TooManyLinks(_))));
    }
}
