//! Dropping tree nodes that nothing names any more.

use std::collections::{HashMap, HashSet};
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
    /// Drops the tree nodes that no record, no image and no account leads to, when there are many and no build runs.
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
        for chunk in self.unused_trees(cancel)?.chunks(CHUNK) {
            let state = shared.leases.lock();
            if state.quiet_since() != Some(quiet) || cancel.is_cancelled() {
                return Ok(());
            }
            let mut batch = Batch::default();
            chunk.iter().for_each(|id| batch.delete(Cf::Trees, id.as_bytes().to_vec()));
            shared.db.write(&batch, Sync::No)?;
        }
        Ok(())
    }

    /// The nodes that nothing leads to, parents before children: whoever finds a node after a sweep that stopped
    /// half-way finds all below it too.
    fn unused_trees(&self, cancel: &CancellationToken) -> Result<Vec<Digest>, StoreError> {
        let trees = Trees::new(Arc::new(self.nodes()));
        let reachable = self.reachable_trees(&trees, cancel)?;
        // By unused node, how many unused nodes name it: one that is used names no unused one.
        let mut parents = HashMap::new();
        self.shared.db.scan(Cf::Trees, &mut |key, _| {
            if let Some(id) = key.try_into().ok().map(Digest::from_bytes).filter(|id| !reachable.contains(id))
            {
                parents.insert(id, 0_usize);
            }
            true
        })?;
        for id in Vec::from_iter(parents.keys().copied()) {
            check(cancel)?;
            for below in below(&trees, id)? {
                parents.entry(below).and_modify(|n| *n += 1);
            }
        }
        let mut order: Vec<Digest> = parents.iter().filter(|(_, n)| **n == 0).map(|(id, _)| *id).collect();
        let mut next = 0;
        while let Some(id) = order.get(next).copied() {
            check(cancel)?;
            next += 1;
            for below in below(&trees, id)? {
                if let Some(n) = parents.get_mut(&below) {
                    *n -= 1;
                    if *n == 0 {
                        order.push(below);
                    }
                }
            }
        }
        Ok(order)
    }

    fn reachable_trees(
        &self,
        trees: &Trees,
        cancel: &CancellationToken,
    ) -> Result<HashSet<Digest>, StoreError> {
        let tables = &self.shared.tables;
        let mut open: Vec<Digest> = tables.contents.all()?.into_iter().map(|(_, root)| root).collect();
        open.extend(self.shared.account_roots()?);
        for (_, entry) in tables.records.all()? {
            if let RecordEntry::Record(record) = entry {
                open.extend(record.outputs.values().map(|out| out.content));
            }
        }
        let mut reachable = HashSet::new();
        while let Some(id) = open.pop() {
            check(cancel)?;
            if reachable.insert(id) {
                open.extend(below(trees, id)?);
            }
        }
        Ok(reachable)
    }
}

fn check(cancel: &CancellationToken) -> Result<(), StoreError> {
    if cancel.is_cancelled() { Err(StoreError::Interrupted("collecting unused trees")) } else { Ok(()) }
}

/// What the node `id` names. What is not there needs nothing kept.
fn below(trees: &Trees, id: Digest) -> Result<Vec<Digest>, StoreError> {
    match trees.subtrees(&NodeId::new(id)) {
        Ok(below) => Ok(below.iter().map(|id| *id.digest()).collect()),
        Err(TreeError::Missing(_) | TreeError::Damaged(_)) => Ok(Vec::new()),
        Err(e) => Err(StoreError::Tree(e)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::layer::{Change, Entries, LayerEntry};
    use crate::store::{Account, StoreOptions};
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
        let of_account = tree("account")?;
        let roots = vec![*of_account.digest()];
        let account = Account { written_ms: 1, roots, body: "{}\nas it is".to_owned() };
        store.accounts().put(&Digest::of(b"project"), &account)?;
        assert_eq!(store.accounts().latest(&Digest::of(b"project"))?, Some(account));
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
        assert_eq!(fresh.subtrees(&of_account)?.len(), 1);
        assert!(fresh.contains(&fresh.subtrees(&kept)?[0])?, "what it names is there too");
        assert_eq!(store.verify()?.problems, [""; 0]);
        Ok(())
    }

    #[test]
    fn parents_go_before_children() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let store = Store::open(&dir.path().join("root"), StoreOptions::default())?;
        let trees = Trees::new(Arc::new(store.nodes()));
        let mut layer = Vec::new();
        for i in 0..40 {
            for path in [format!("{i:02}"), format!("{i:02}/a"), format!("{i:02}/a/{i}"), format!("{i:02}/b")]
            {
                let change = Change::Put { node: Node::plain_dir(), mtime: 0 };
                layer.push(LayerEntry { path: TreePath::parse(path.as_bytes())?, change });
            }
        }
        let root = trees.apply(Trees::empty(), &Entries::new(layer))?;
        let order = store.unused_trees(&CancellationToken::new())?;
        assert_eq!(order.len(), 81);
        assert_eq!(order[0], *root.digest());
        let place = |id: &Digest| order.iter().position(|other| other == id);
        for id in &order {
            for below in trees.subtrees(&NodeId::new(*id))? {
                assert!(place(id) < place(below.digest()));
            }
        }
        Ok(())
    }
}
