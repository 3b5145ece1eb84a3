//! Applying a layer to a tree.

use bytes::Bytes;

use super::codec::{Child, Contents, DirNode};
use super::error::TreeError;
use super::node::{Node, NodeId};
use super::trees::Trees;
use crate::layer::{Change, Entries, LayerEntry};

/// New nodes, children before parents.
type NewNodes = Vec<(NodeId, Bytes)>;

impl Trees {
    /// Applies the entries of a layer to `root` and stores the touched nodes; gives the new root.
    ///
    /// Missing parents become plain directories; a whiteout of what does not exist changes nothing.
    ///
    /// # Errors
    /// [`TreeError::PathTooLong`]; when a node is missing or damaged, or the storage fails.
    pub fn apply(&self, root: NodeId, layer: &Entries) -> Result<NodeId, TreeError> {
        if layer.is_empty() {
            return Ok(root);
        }
        if let Some(entry) = layer.iter().find(|entry| entry.path.is_too_long()) {
            return Err(TreeError::PathTooLong(entry.path.clone()));
        }
        let mut new = NewNodes::new();
        let root = self.merge_dir(&root, layer.as_slice(), 0, &mut new)?;
        self.store(new)?;
        Ok(root.id)
    }

    /// Applies several layers, bottom first: a chain or a merge.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_all<'a>(
        &self,
        root: NodeId,
        layers: impl IntoIterator<Item = &'a Entries>,
    ) -> Result<NodeId, TreeError> {
        layers.into_iter().try_fold(root, |root, layer| self.apply(root, layer))
    }

    /// Merges entries, all below one directory whose path is `prefix` bytes long with its slash, into its node.
    fn merge_dir(
        &self,
        old: &NodeId,
        entries: &[LayerEntry],
        prefix: usize,
        new: &mut NewNodes,
    ) -> Result<Contents, TreeError> {
        let node = self.load(old)?;
        let mut children = Vec::with_capacity(node.children.len() + entries.len().min(1024));
        let mut kept = node.children.iter().peekable();
        for group in entries.chunk_by(|a, b| name_at(a, prefix) == name_at(b, prefix)) {
            let name = name_at(&group[0], prefix);
            while let Some(child) = kept.next_if(|c| *c.name < *name) {
                children.push(child.clone());
            }
            let below = kept.next_if(|c| *c.name == *name);
            children.extend(self.merge_child(below, name, group, prefix, new)?);
        }
        children.extend(kept.cloned());
        let merged = DirNode { children };
        let (contents, bytes) = merged.seal();
        if contents.id != *old && !merged.children.is_empty() {
            new.push((contents.id, bytes));
        }
        Ok(contents)
    }

    /// Merges the entries of one name: the object itself, if it is among them, and what is below it.
    fn merge_child(
        &self,
        below: Option<&Child>,
        name: &[u8],
        group: &[LayerEntry],
        prefix: usize,
        new: &mut NewNodes,
    ) -> Result<Option<Child>, TreeError> {
        let end = prefix + name.len();
        let (own, inner) = match group.split_first() {
            Some((first, rest)) if first.path.as_bytes().len() == end => (Some(&first.change), rest),
            _ => (None, group),
        };
        let lower_dir = below.and_then(|c| Some((c, c.contents?)));
        let (node, lower) = match own {
            Some(Change::Whiteout) if inner.is_empty() => return Ok(None),
            Some(Change::Whiteout) => (Node::plain_dir(), None),
            Some(Change::Put { node, .. }) if node.is_dir() => (node.clone(), lower_dir),
            Some(Change::Put { node, .. }) => {
                return Ok(Some(Child { name: name.into(), node: node.clone(), contents: None }));
            }
            None => (lower_dir.map_or_else(Node::plain_dir, |(c, _)| c.node.clone()), lower_dir),
        };
        let lower = lower.map_or_else(Self::empty_contents, |(_, contents)| contents);
        let contents = if inner.is_empty() { lower } else { self.merge_dir(&lower.id, inner, end + 1, new)? };
        Ok(Some(Child { name: name.into(), node, contents: Some(contents) }))
    }
}

/// The component of an entry's path that starts at byte `prefix`.
fn name_at(entry: &LayerEntry, prefix: usize) -> &[u8] {
    let rest = &entry.path.as_bytes()[prefix..];
    &rest[..rest.iter().position(|&b| b == b'/').unwrap_or(rest.len())]
}
