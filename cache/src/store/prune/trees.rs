//! Dropping tree nodes that nothing names any more.

use std::collections::HashSet;
use std::sync::Arc;

use solver::Digest;
use tokio_util::sync::CancellationToken;

use crate::store::Store;
use crate::store::db::{Batch, Cf, Sync};
use crate::store::error::StoreError;
use crate::store::records::RecordEntry;
use crate::tree::{NodeId, TreeError, Trees};

/// Below this many bytes on disk the trees are left alone: finding out what is unused means reading them all.
const SWEEP_ABOVE_BYTES: u64 = 64 << 20;

/// So many nodes share one write. No build can begin meanwhile.
const CHUNK: usize = 1000;

impl Store {
    /// Drops the tree nodes that no record and no image leads to, when there are many and no build runs.
    ///
    /// It gives up as soon as a build begins, since a build extends trees by new nodes over old ones.
    pub(super) fn sweep_trees(&self, cancel: &CancellationToken) -> Result<(), StoreError> {
        if self.shared.db.file_bytes(Cf::Trees)? <= SWEEP_ABOVE_BYTES {
            return Ok(());
        }
        self.drop_unreachable_trees(cancel)
    }

    fn drop_unreachable_trees(&self, cancel: &CancellationToken) -> Result<(), StoreError> {
        let shared = &self.shared;
        let Some(quiet) = shared.leases.lock().quiet_since() else { return Ok(()) };
        let reachable = self.reachable_trees(cancel)?;
        let mut unused = Vec::new();
        shared.db.scan(Cf::Trees, &mut |key, _| {
            if !key.try_into().is_ok_and(|id| reachable.contains(&Digest::from_bytes(id))) {
                unused.push(key.to_vec());
            }
            true
        })?;
        for chunk in unused.chunks(CHUNK) {
            let state = shared.leases.lock();
            if state.quiet_since() != Some(quiet) || cancel.is_cancelled() {
                return Ok(());
            }
            let mut batch = Batch::default();
            chunk.iter().for_each(|key| batch.delete(Cf::Trees, key.clone()));
            shared.db.write(&batch, Sync::No)?;
        }
        Ok(())
    }

    fn reachable_trees(&self, cancel: &CancellationToken) -> Result<HashSet<Digest>, StoreError> {
        let tables = &self.shared.tables;
        let mut open: Vec<Digest> = tables.contents.all()?.into_iter().map(|(_, root)| root).collect();
        for (_, entry) in tables.records.all()? {
            if let RecordEntry::Record(record) = entry {
                open.extend(record.outputs.values().map(|out| out.content));
            }
        }
        let trees = Trees::new(Arc::new(self.nodes()));
        let mut reachable = HashSet::new();
        while let Some(id) = open.pop() {
            if cancel.is_cancelled() {
                return Err(StoreError::Interrupted("collecting unused trees"));
            }
            if !reachable.insert(id) {
                continue;
            }
            match trees.subtrees(&NodeId::new(id)) {
                Ok(below) => open.extend(below.iter().map(|id| *id.digest())),
                // What is not there needs nothing kept.
                Err(TreeError::Missing(_) | TreeError::Damaged(_)) => {}
                Err(e) => return Err(StoreError::Tree(e)),
            }
        }
        Ok(reachable)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::layer::{Change, Entries, LayerEntry};
    use crate::store::StoreOptions;
    use crate::tree::{Node, NodeStore, TreePath};

    #[test]
    fn a_sweep_leaves_what_is_named() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let store = Store::open(&dir.path().join("root"), StoreOptions::default())?;
        let trees = Trees::new(Arc::new(store.nodes()));
        let tree = |name: &str| -> Result<NodeId, Box<dyn std::error::Error>> {
            let change = || Change::Put { node: Node::plain_dir(), mtime: 0 };
            let paths = ["a".to_owned(), format!("a/{name}")];
            let entry =
                |p: &String| Ok(LayerEntry { path: TreePath::parse(p.as_bytes())?, change: change() });
            let entries: Result<Vec<_>, crate::tree::InvalidPath> = paths.iter().map(entry).collect();
            Ok(trees.apply(Trees::empty(), &Entries::new(entries?))?)
        };
        let (kept, dropped) = (tree("kept")?, tree("dropped")?);
        store.set_content(&Digest::of(b"image"), &kept)?;
        let junk = NodeId::new(Digest::of(b"junk"));
        store.nodes().put(vec![(junk, Bytes::from_static(b"junk"))])?;
        let build = store.lease();
        store.drop_unreachable_trees(&CancellationToken::new())?;
        assert!(store.nodes().get(&junk)?.is_some(), "a build runs");
        drop(build);
        store.drop_unreachable_trees(&CancellationToken::new())?;
        assert!(store.nodes().get(&junk)?.is_none());
        assert!(store.nodes().get(&dropped)?.is_none());
        let fresh = Trees::new(Arc::new(store.nodes()));
        assert_eq!(fresh.subtrees(&kept)?.len(), 1);
        assert!(fresh.contains(&fresh.subtrees(&kept)?[0])?, "what it names is there too");
        assert_eq!(store.verify()?.problems, [""; 0]);
        Ok(())
    }
}
