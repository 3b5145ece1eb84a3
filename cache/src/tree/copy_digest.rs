//! The copy digest: what COPY, ADD and read-only binds see.

use solver::Digest;

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

impl Trees {
    /// Digest of the object at exactly `path` and all below it, without its own name, times and hard-link groups.
    ///
    /// The caller resolves links and globs first ([`Trees::resolve`]) and hashes names where they matter.
    ///
    /// # Errors
    /// [`TreeError::NotFound`] when there is nothing; otherwise as [`Self::get`].
    pub fn copy_digest(&self, root: &NodeId, path: &TreePath) -> Result<Digest, TreeError> {
        todo!()
    }

    /// As [`Self::copy_digest`], of what `select` (called in walk order with paths relative to `path`) takes; the
    /// selected object itself always counts. With a filter that takes all the result is that of [`Self::copy_digest`].
    ///
    /// # Errors
    /// As [`Self::copy_digest`].
    pub fn filtered_copy_digest(
        &self,
        root: &NodeId,
        path: &TreePath,
        select: &mut dyn FnMut(&TreePath, &Node) -> Select,
    ) -> Result<Digest, TreeError> {
        todo!()
    }
}
