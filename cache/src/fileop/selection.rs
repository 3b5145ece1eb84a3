//! What a copy selects, as a digest for its cache key.
//!
//! The digest changes exactly when what is copied would: names, types, modes, owners, contents, link targets and
//! attributes count, times and hard-link groups do not (nor the owners of a context's files, which are 0:0 in its
//! tree). The source's own name counts, as in BuildKit, its directories do not.
//!
//! Byte format: SHA-256 in the domain `rbuild.selection.v1` over the number of selections, then for each: 0 for a
//! directory that does not exist before a wildcard or a filter; 1, the source's name and a copy digest; or 2, the
//! number of matches, and for each its path below the last directory without wildcard and its copy digest.

use solver::digest::Hasher;
use solver::{Digest, Selection};

use super::env::FileInput;
use super::error::ActionError;
use super::filters::{Above, Filters};
use super::resolve::LlbPath;
use super::source::Source;
use super::wildcard::resolve_wildcards;
use crate::pattern::has_wildcards;
use crate::tree::{Node, NodeId, Select, TreePath, Trees};

/// The digest of what `selections` take of the tree `root`.
///
/// # Errors
/// [`ActionError::SourceNotFound`] for a path without wildcard that does not exist and for a required path that is not
/// selected; malformed patterns; a tree that cannot be read.
pub fn selection_digest(
    trees: &Trees,
    root: &NodeId,
    selections: &[Selection],
) -> Result<Digest, ActionError> {
    let mut hasher = Hasher::new("rbuild.selection.v1");
    hasher.u64(selections.len() as u64);
    for selection in selections {
        One::new(trees, root, selection)?.add_to(&mut hasher)?;
    }
    Ok(hasher.finish())
}

/// [`selection_digest`] of an input.
///
/// # Errors
/// As there.
pub fn input_selection_digest(input: &FileInput, selections: &[Selection]) -> Result<Digest, ActionError> {
    match input {
        FileInput::Chain(base) => selection_digest(&base.trees, &base.root, selections),
        FileInput::Context(context) => selection_digest(&context.trees, &context.root, selections),
    }
}

struct One<'a> {
    trees: &'a Trees,
    root: &'a NodeId,
    selection: &'a Selection,
    filters: Filters,
}

impl<'a> One<'a> {
    fn new(trees: &'a Trees, root: &'a NodeId, selection: &'a Selection) -> Result<Self, ActionError> {
        let filters = Filters::new(&selection.include_patterns, &selection.exclude_patterns)?;
        Ok(Self { trees, root, selection, filters })
    }

    fn add_to(&self, hasher: &mut Hasher) -> Result<(), ActionError> {
        let source = Source::Tree(self.trees, self.root);
        let path = LlbPath::new(&self.selection.path)?;
        let mut required = Required::new(&self.selection.required_paths)?;
        if self.selection.wildcard && has_wildcards(path.path.as_bytes()) {
            match resolve_wildcards(&source, &path.path, self.selection.follow_symlink) {
                Ok(matches) => self.add_matches(hasher, &source, &matches, &mut required)?,
                Err(ActionError::NotFound { .. }) => drop(hasher.u64(0)),
                Err(e) => return Err(e),
            }
            return required.check();
        }
        match self.digest(&source, &path.path, &mut required)? {
            Some(digest) => drop(hasher.u64(1).bytes(path.path.name()).digest(&digest)),
            None if !self.filters.take_all() => drop(hasher.u64(0)),
            None => return Err(not_found(&path.path)),
        }
        required.check()
    }

    fn add_matches(
        &self,
        hasher: &mut Hasher,
        source: &Source<'_>,
        matches: &[TreePath],
        required: &mut Required,
    ) -> Result<(), ActionError> {
        hasher.u64(2).u64(matches.len() as u64);
        let levels =
            self.selection.path.split('/').skip_while(|part| !has_wildcards(part.as_bytes())).count();
        for path in matches {
            let digest = self.digest(source, path, required)?.ok_or_else(|| not_found(path))?;
            let names: Vec<&[u8]> = path.components().collect();
            let below = names[names.len().saturating_sub(levels)..].join(&b'/');
            hasher.bytes(&below).digest(&digest);
        }
        Ok(())
    }

    /// The copy digest of what `path` leads to, with the filters; `None` when it leads nowhere.
    fn digest(
        &self,
        source: &Source<'_>,
        path: &TreePath,
        required: &mut Required,
    ) -> Result<Option<Digest>, ActionError> {
        let real = source.resolve(path.as_bytes(), self.selection.follow_symlink)?;
        if source.get(&real)?.is_none() {
            return Ok(None);
        }
        if self.filters.take_all() {
            return Ok(Some(self.trees.copy_digest(self.root, &real)?));
        }
        let mut parents: Vec<(TreePath, Above)> = Vec::new();
        let mut select = |relative: &TreePath, node: &Node| {
            while parents.last().is_some_and(|(dir, _)| !relative.starts_with(dir)) {
                parents.pop();
            }
            let verdict = self.judge(relative, node, &mut parents);
            if matches!(verdict, Select::All | Select::Descend) {
                required.note(&path.join_path(relative));
            }
            verdict
        };
        Ok(Some(self.trees.filtered_copy_digest(self.root, &real, &mut select)?))
    }

    fn judge(&self, relative: &TreePath, node: &Node, parents: &mut Vec<(TreePath, Above)>) -> Select {
        let path = relative.as_bytes();
        let above = parents.last().map(|(_, above)| above.clone()).unwrap_or_default();
        let verdict = self.filters.judge(path, &above);
        if !node.is_dir() {
            return if verdict.takes() { Select::All } else { Select::Skip };
        }
        parents.push((relative.clone(), verdict.below));
        let returns = self.filters.may_take_back_below(path);
        match (verdict.included, verdict.excluded) {
            (true, false) => Select::Descend,
            (_, true) if !returns => Select::Skip,
            _ => Select::IfNotEmpty,
        }
    }
}

/// Paths that have to be selected.
struct Required(Vec<(TreePath, bool)>);

impl Required {
    fn new(paths: &[String]) -> Result<Self, ActionError> {
        let clean = |path: &String| Ok((TreePath::clean(path.as_bytes())?, false));
        Ok(Self(paths.iter().map(clean).collect::<Result<_, ActionError>>()?))
    }

    fn note(&mut self, path: &TreePath) {
        for (required, found) in &mut self.0 {
            *found |= path.as_bytes().starts_with(required.as_bytes());
        }
    }

    fn check(self) -> Result<(), ActionError> {
        match self.0.into_iter().find(|(_, found)| !found) {
            Some((path, _)) => Err(not_found(&path)),
            None => Ok(()),
        }
    }
}

fn not_found(path: &TreePath) -> ActionError {
    ActionError::SourceNotFound { path: format!("/{}", String::from_utf8_lossy(path.as_bytes())) }
}
