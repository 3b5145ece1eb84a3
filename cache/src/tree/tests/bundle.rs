//! Trees that go to another machine.

use std::sync::Arc;

use proptest::prelude::*;

use crate::layer::{Change, Entries, LayerEntry};
use crate::tree::{Bundle, FileDigest, Kind, MemoryNodes, Node, NodeId, TreePath, Trees};

fn here() -> Trees {
    Trees::new(Arc::new(MemoryNodes::default()))
}

fn file(path: &str, text: &str) -> LayerEntry {
    let kind = Kind::File { size: text.len() as u64, content: FileDigest::of(text.as_bytes()) };
    let node = Node { kind, mode: 0o644, uid: 0, gid: 0, mtime: None, xattrs: Vec::new(), link_group: None };
    LayerEntry { path: TreePath::parse(path.as_bytes()).unwrap(), change: Change::Put { node, mtime: 0 } }
}

#[test]
fn what_was_bundled_can_be_compared_elsewhere() {
    let (there, here) = (here(), here());
    let old = Entries::new(vec![file("a/b/c", "1"), file("a/d", "1"), file("e", "1")]);
    let new = Entries::new(vec![file("a/b/c", "2"), file("a/d", "1"), file("e", "1")]);
    let old = there.apply(Trees::empty(), &old).unwrap();
    let new = here.apply(Trees::empty(), &new).unwrap();
    assert!(here.diff(&old, &new).is_err());
    let bundle = there.bundle(&[old, Trees::empty()], 1 << 20).unwrap().unwrap();
    let both = here.with(&Bundle::decode(&bundle.encode().into()).unwrap());
    let found: Vec<String> =
        both.diff(&old, &new).unwrap().into_iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(found, ["/a/b/c"]);
    // Nothing of it stays.
    assert!(!here.contains(&old).unwrap() && both.contains(&old).unwrap());
    // Two trees have more than fits.
    assert_eq!(there.bundle(&[old], bundle.encode().len() / 2).unwrap(), None);
    // What is not there is left out.
    assert_eq!(there.bundle(&[new], 1 << 20).unwrap(), Some(Bundle::default()));
}

#[test]
fn equal_directories_count_each_time() {
    let trees = here();
    let names = |n: usize| (0..n).map(|i| format!("d{i}")).collect::<Vec<_>>();
    let mut entries = Vec::new();
    for (one, two) in names(3).iter().flat_map(|one| names(4).into_iter().map(move |two| (one.clone(), two)))
    {
        entries.push(file(&format!("{one}/{two}/f"), "1"));
    }
    let root = trees.apply(Trees::empty(), &Entries::new(entries)).unwrap();
    // Three, twelve in them, and a file in each of those.
    assert!(trees.have_paths_within(&[root], 27).unwrap());
    assert!(!trees.have_paths_within(&[root], 26).unwrap());
    assert!(!trees.have_paths_within(&[root, root], 53).unwrap());
    let elsewhere = NodeId::new(solver::Digest::of(b"elsewhere"));
    assert!(trees.have_paths_within(&[Trees::empty(), elsewhere, root], 27).unwrap());
}

proptest! {
    #[test]
    fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Some(bundle) = Bundle::decode(&bytes.into()) {
            prop_assert_eq!(Bundle::decode(&bundle.encode().into()), Some(bundle));
        }
    }
}
