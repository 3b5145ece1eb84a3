//! The copy digest: what COPY, ADD and read-only binds see.

use solver::Digest;

use super::codec::{Child, Contents, CopyHasher, copy_digest_of};
use super::error::TreeError;
use super::node::{Node, NodeId};
use super::path::TreePath;
use super::trees::Trees;

/// What a filter wants of an object below the selected path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// It counts, with everything below it; nothing below is asked about.
    All,
    /// It counts; what is below is asked about.
    Descend,
    /// A directory that counts only if something below it does; what is below is asked about.
    IfNotEmpty,
    /// It does not count, nor does anything below it.
    Skip,
}

/// A filter, called with paths relative to the selected object.
type Filter<'a> = &'a mut dyn FnMut(&TreePath, &Node) -> Select;

impl Trees {
    /// Digest of the object at exactly `path` and all below it, without its own name, times and hard-link groups.
    ///
    /// The root counts as a plain directory. The caller resolves links and globs first ([`Trees::resolve`]) and
    /// hashes names where they matter.
    ///
    /// # Errors
    /// [`TreeError::NotFound`] when there is nothing; otherwise as [`Self::get`].
    pub fn copy_digest(&self, root: &NodeId, path: &TreePath) -> Result<Digest, TreeError> {
        let (node, contents) = self.selected(root, path)?;
        Ok(copy_digest_of(&node, contents.map(|c| c.copy)))
    }

    /// As [`Self::copy_digest`], of what `select` (called in walk order with paths relative to `path`) takes; the
    /// selected object itself always counts. With a filter that takes all the result is that of
    /// [`Self::copy_digest`].
    ///
    /// # Errors
    /// As [`Self::copy_digest`].
    pub fn filtered_copy_digest(
        &self,
        root: &NodeId,
        path: &TreePath,
        select: &mut dyn FnMut(&TreePath, &Node) -> Select,
    ) -> Result<Digest, TreeError> {
        let (node, contents) = self.selected(root, path)?;
        let copy = match contents {
            Some(contents) => Some(self.filtered_contents(&contents.id, &TreePath::root(), select)?.digest),
            None => None,
        };
        Ok(copy_digest_of(&node, copy))
    }

    fn selected(&self, root: &NodeId, path: &TreePath) -> Result<(Node, Option<Contents>), TreeError> {
        if path.is_root() {
            let (contents, _) = self.load(root)?.seal();
            return Ok((Node::plain_dir(), Some(contents)));
        }
        let Child { node, contents, .. } =
            self.child_at(root, path)?.ok_or_else(|| TreeError::NotFound(path.clone()))?;
        Ok((node, contents))
    }

    fn filtered_contents(
        &self,
        id: &NodeId,
        path: &TreePath,
        select: Filter<'_>,
    ) -> Result<Filtered, TreeError> {
        let dir = self.load(id)?;
        let mut taken = Vec::new();
        for child in &dir.children {
            let path = path.child(&child.name);
            let wish = select(&path, &child.node);
            let copy = match (wish, child.contents) {
                (Select::Skip, _) | (Select::IfNotEmpty, None) => continue,
                (Select::All, contents) => contents.map(|c| c.copy),
                (Select::Descend, None) => None,
                (Select::Descend | Select::IfNotEmpty, Some(contents)) => {
                    let below = self.filtered_contents(&contents.id, &path, select)?;
                    if wish == Select::IfNotEmpty && below.count == 0 {
                        continue;
                    }
                    Some(below.digest)
                }
            };
            taken.push((child, copy));
        }
        let mut hasher = CopyHasher::new(taken.len());
        for (child, copy) in &taken {
            hasher.child(&child.name, &child.node, *copy);
        }
        Ok(Filtered { digest: hasher.finish(), count: taken.len() })
    }
}

/// What a filter left of a directory's contents.
struct Filtered {
    digest: Digest,
    count: usize,
}
