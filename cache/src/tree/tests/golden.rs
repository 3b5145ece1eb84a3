//! The bytes that are hashed: a change here makes every tree and layer on disk unreadable.

use std::sync::Arc;

use bytes::Bytes;
use solver::Digest;

use crate::layer::{Change, Entries, LayerEntry};
use crate::tree::{FileDigest, Kind, MemoryNodes, Node, NodeId, NodeStore, TreeError, TreePath, Trees};

fn put(path: &str, kind: Kind, mtime: Option<i64>, group: Option<&str>) -> LayerEntry {
    let node = Node {
        kind,
        mode: 0o644,
        uid: 1000,
        gid: 300,
        mtime,
        xattrs: vec![(b"security.capability"[..].into(), b"\x01\x02"[..].into())],
        link_group: group.map(|g| TreePath::parse(g.as_bytes()).unwrap()),
    };
    LayerEntry { path: TreePath::parse(path.as_bytes()).unwrap(), change: Change::Put { node, mtime: 77 } }
}

fn sample() -> Entries {
    let content = FileDigest::of(b"hello");
    Entries::new(vec![
        put("dir", Kind::Dir, None, None),
        put("dir/file", Kind::File { size: 5, content }, Some(-1), Some("dir/file")),
        put("dir/link", Kind::Symlink { target: b"../x"[..].into() }, None, None),
        put("dev", Kind::CharDevice { major: 1, minor: 300 }, None, None),
        put("pipe", Kind::Fifo, None, None),
        LayerEntry { path: TreePath::parse(b"gone").unwrap(), change: Change::Whiteout },
    ])
}

#[test]
fn golden_digests() {
    let trees = Trees::new(Arc::new(MemoryNodes::default()));
    let root = trees.apply(Trees::empty(), &sample()).unwrap();
    let digests = [
        Trees::empty().digest().hex(),
        root.digest().hex(),
        trees.copy_digest(&root, &TreePath::root()).unwrap().hex(),
        trees.copy_digest(&root, &TreePath::parse(b"dir/file").unwrap()).unwrap().hex(),
        sample().layer_id().hex(),
    ];
    insta::assert_snapshot!(digests.join("\n"), @r"
    3d87e77f490b817f1997f0553ba2ac4faae7e45bd0ca4a8bff317395eecee142
    0240514da38ac02c60981c56843304dc0c700c3b704742a56fd68c912eb48bac
    ff037a4d90e500aca106d7e38bde0800bade2fc18b62a0fdedf6bdcfa373ebe5
    2eb160a047308ec30167b4babd5154eb1752b3d15643115b3d95059546164e09
    797c8279e1033fc0d69913ab8e5496b22abdf9a5f00376123e3fa47b4b403f64
    ");
}

#[test]
fn entries_round_trip_and_damage_is_noticed() {
    let bytes = sample().encode();
    assert_eq!(Entries::decode(&bytes).unwrap(), sample());
    for cut in 0..bytes.len() {
        assert!(Entries::decode(&bytes[..cut]).is_err(), "{cut}");
    }
    assert!(Entries::decode(&[&bytes[..], b"x"].concat()).is_err());
}

#[test]
fn a_damaged_node_is_an_error() {
    let store = Arc::new(MemoryNodes::default());
    let trees = Trees::new(store.clone());
    let root = trees.apply(Trees::empty(), &sample()).unwrap();
    let mut bytes = store.get(&root).unwrap().unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    store.put(vec![(root, Bytes::from(bytes))]).unwrap();
    let fresh = Trees::new(store);
    assert!(matches!(fresh.list(&root, &TreePath::root()), Err(TreeError::Damaged(id)) if id == root));
    let missing = NodeId::new(Digest::of(b"nothing"));
    assert!(matches!(fresh.list(&missing, &TreePath::root()), Err(TreeError::Missing(id)) if id == missing));
    assert!(!fresh.contains(&missing).unwrap());
    assert!(fresh.contains(&Trees::empty()).unwrap());
}
