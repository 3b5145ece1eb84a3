//! Looking at layer and base together.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;

use super::LayerBuilder;
use super::state::State;
use crate::layer::error::LayerError;
use crate::layer::normal::io_error;
use crate::tree::resolve::{Missing, ResolveError, Step, resolve};
use crate::tree::{Follow, Found, Node, TreeEntry, TreeError, TreePath};
use crate::view::disk;

impl LayerBuilder {
    /// The object at exactly `path`, of the new layer or of the base.
    ///
    /// A time of the layer's own objects that counts is not known before the end and missing here.
    ///
    /// # Errors
    /// When the base's tree cannot be read.
    pub fn get(&self, path: &TreePath) -> Result<Option<Node>, LayerError> {
        self.look(&self.state(), path)
    }

    /// Resolves a path over layer and base together; as [`crate::tree::Trees::resolve`].
    ///
    /// # Errors
    /// [`LayerError::NotFound`] when a directory on the way is missing, [`LayerError::NotADirectory`],
    /// [`TreeError::TooManyLinks`], or when the base's tree cannot be read.
    pub fn resolve(&self, path: &[u8], follow: Follow) -> Result<Found, LayerError> {
        self.resolve_with(path, follow, Missing::Error)
    }

    /// As [`Self::resolve`], for paths that are to be made with their parents: what follows a missing component is
    /// taken literally (`..` still goes up).
    ///
    /// # Errors
    /// As [`Self::resolve`], but never [`LayerError::NotFound`].
    pub fn resolve_new(&self, path: &[u8], follow: Follow) -> Result<Found, LayerError> {
        self.resolve_with(path, follow, Missing::Literal)
    }

    /// The names in a directory, of layer and base together, sorted by bytes.
    ///
    /// # Errors
    /// [`LayerError::NotFound`], [`LayerError::NotADirectory`], or when the base's tree cannot be read.
    pub fn list(&self, path: &TreePath) -> Result<Vec<TreeEntry>, LayerError> {
        let state = self.state();
        match self.look(&state, path)? {
            None => return Err(LayerError::NotFound(path.clone())),
            Some(node) if !node.is_dir() => return Err(LayerError::NotADirectory(path.clone())),
            Some(_) => {}
        }
        let mut names: BTreeMap<Box<[u8]>, Node> = BTreeMap::new();
        let covered = state.slots.get(path).is_some_and(|slot| slot.opaque) || !state.shows_through(path);
        if !covered && self.base_node(path)?.is_some_and(|node| node.is_dir()) {
            for entry in self.base.trees.list(&self.base.root, path)? {
                if !state.whiteouts.contains(&path.child(&entry.name)) {
                    names.insert(entry.name, entry.node);
                }
            }
        }
        for child in state.subtree(path) {
            if child.parent().as_ref() == Some(path)
                && let Some(slot) = state.slots.get(&child)
            {
                names.insert(child.name().into(), slot.node.clone());
            }
        }
        Ok(names.into_iter().map(|(name, node)| TreeEntry { name, node }).collect())
    }

    /// Opens a regular file of layer or base for reading (exact path).
    ///
    /// # Errors
    /// [`LayerError::NotFound`], or when it cannot be opened.
    pub fn open(&self, path: &TreePath) -> Result<File, LayerError> {
        let state = self.state();
        if let Some(slot) = state.slots.get(path) {
            if !slot.own {
                return self.open_in_backing(path);
            }
            return disk::open_file(self.root.as_fd(), path.as_bytes())
                .map_err(|e| io_error("open", path, e));
        }
        if self.look(&state, path)?.is_none() {
            return Err(LayerError::NotFound(path.clone()));
        }
        let found = self.base.view.get(path)?.ok_or_else(|| LayerError::NotFound(path.clone()))?;
        Ok(self.base.view.open_file(&found)?)
    }

    /// The real modification time of an object of layer or base, in nanoseconds since 1970; `None` when there is none.
    ///
    /// # Errors
    /// When the base's directories cannot be read.
    pub fn mtime(&self, path: &TreePath) -> Result<Option<i64>, LayerError> {
        let state = self.state();
        if let Some(slot) = state.slots.get(path) {
            return Ok(Some(slot.mtime));
        }
        if self.look(&state, path)?.is_none() {
            return Ok(None);
        }
        Ok(self.base.view.get(path)?.map(|found| found.stat.mtime))
    }

    /// What one sees at exactly `path`.
    pub(super) fn look(&self, state: &State, path: &TreePath) -> Result<Option<Node>, LayerError> {
        if path.is_root() {
            return Ok(Some(Node::plain_dir()));
        }
        if let Some(slot) = state.slots.get(path) {
            return Ok(Some(slot.node.clone()));
        }
        if state.whiteouts.contains(path) || !state.shows_through(path) {
            return Ok(None);
        }
        self.base_node(path)
    }

    /// What the base has at exactly `path`, visible or not.
    pub(super) fn base_node(&self, path: &TreePath) -> Result<Option<Node>, LayerError> {
        Ok(self.base.trees.get(&self.base.root, path)?)
    }

    fn resolve_with(&self, path: &[u8], follow: Follow, missing: Missing) -> Result<Found, LayerError> {
        let state = self.state();
        let step = |p: &TreePath| Ok::<_, LayerError>(self.look(&state, p)?.as_ref().map(Step::of));
        let real = resolve(path, follow, missing, step).map_err(|e| layer_error(e, path))?;
        let node = self.look(&state, &real)?;
        Ok(Found { path: real, node })
    }

    /// Resolves the parents of an archive's name: only links of the layer itself count, and nothing has to exist.
    pub(in crate::layer) fn resolve_in_layer(&self, path: &TreePath) -> Result<TreePath, LayerError> {
        let (Some(parent), name) = (path.parent(), path.name()) else { return Ok(TreePath::root()) };
        let state = self.state();
        let step = |p: &TreePath| Ok::<_, LayerError>(state.slots.get(p).map(|slot| Step::of(&slot.node)));
        let real = resolve(parent.as_bytes(), Follow::Last, Missing::Literal, step)
            .map_err(|e| layer_error(e, path.as_bytes()))?;
        Ok(real.child(name))
    }
}

/// As an error of the layer; `path` is what was to be resolved.
fn layer_error(error: ResolveError<LayerError>, path: &[u8]) -> LayerError {
    match error {
        ResolveError::NotFound(at) => LayerError::NotFound(at),
        ResolveError::NotADirectory(at) => LayerError::NotADirectory(at),
        ResolveError::TooManyLinks => TreeError::TooManyLinks(path.into()).into(),
        ResolveError::Path(e) => TreeError::Path(e).into(),
        ResolveError::Get(e) => e,
    }
}
