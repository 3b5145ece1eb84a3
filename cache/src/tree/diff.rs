//! The difference of two trees.

use std::cmp::Ordering;

use super::codec::{Child, Contents};
use super::error::TreeError;
use super::node::NodeId;
use super::path::TreePath;
use super::trees::Trees;
use crate::layer::Change;

/// Changes in walk order.
type Changes = Vec<(TreePath, Change)>;

impl Trees {
    /// What has to be applied to `lower` to give `upper`, in walk order; subtrees with equal nodes are not entered.
    ///
    /// Parents of changes are not in the list unless they changed themselves. A removed directory is one
    /// whiteout; a directory that replaces something else comes with all that it holds.
    /// Times of [`Change::Put`] are those that count, else 0: the bytes and times come from a view of `upper`.
    ///
    /// # Errors
    /// When a node is missing or damaged, or the storage fails.
    pub fn diff(&self, lower: &NodeId, upper: &NodeId) -> Result<Vec<(TreePath, Change)>, TreeError> {
        let mut out = Changes::new();
        self.diff_dir(lower, upper, &TreePath::root(), &mut out)?;
        Ok(out)
    }

    fn diff_dir(
        &self,
        lower: &NodeId,
        upper: &NodeId,
        path: &TreePath,
        out: &mut Changes,
    ) -> Result<(), TreeError> {
        if lower == upper {
            return Ok(());
        }
        let (lower, upper) = (self.load(lower)?, self.load(upper)?);
        let (mut old, mut new) = (lower.children.iter().peekable(), upper.children.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.name.cmp(&b.name),
            };
            let old = if order.is_le() { old.next() } else { None };
            let new = if order.is_ge() { new.next() } else { None };
            self.diff_child(old, new, path, out)?;
        }
    }

    fn diff_child(
        &self,
        old: Option<&Child>,
        new: Option<&Child>,
        dir: &TreePath,
        out: &mut Changes,
    ) -> Result<(), TreeError> {
        let Some(new) = new else {
            out.extend(old.map(|old| (dir.child(&old.name), Change::Whiteout)));
            return Ok(());
        };
        let path = dir.child(&new.name);
        if old.is_none_or(|old| old.node != new.node) {
            let mtime = new.node.mtime.unwrap_or(0);
            out.push((path.clone(), Change::Put { node: new.node.clone(), mtime }));
        }
        let Some(Contents { id: upper, .. }) = new.contents else { return Ok(()) };
        let lower = old.and_then(|old| old.contents).unwrap_or_else(Self::empty_contents).id;
        self.diff_dir(&lower, &upper, &path, out)
    }
}
