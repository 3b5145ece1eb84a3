//! Symbolic links inside a root.

use std::sync::Arc;

use crate::layer::{Change, Entries, LayerEntry};
use crate::tree::{Follow, Kind, MemoryNodes, Node, NodeId, TreeError, TreePath, Trees};

fn tree() -> (Trees, NodeId) {
    let link = |target: &str| Kind::Symlink { target: target.as_bytes().into() };
    let list = [
        ("usr", Kind::Dir),
        ("usr/bin", Kind::Dir),
        ("usr/bin/sh", Kind::Fifo),
        ("bin", link("usr/bin")),
        ("abs", link("/usr/bin/sh")),
        ("out", link("../../../usr")),
        ("usr/up", link("../bin/./sh")),
        ("loop", link("loop")),
        ("dangling", link("nowhere/x")),
        ("new", link("usr/new")),
    ];
    let entry = |(path, kind): (&str, Kind)| LayerEntry {
        path: TreePath::parse(path.as_bytes()).unwrap(),
        change: Change::Put { node: Node { kind, ..Node::plain_dir() }, mtime: 0 },
    };
    let trees = Trees::new(Arc::new(MemoryNodes::default()));
    let root = trees.apply(Trees::empty(), &Entries::new(list.map(entry).to_vec())).unwrap();
    (trees, root)
}

#[test]
fn links_stay_inside_the_root() {
    let (trees, root) = tree();
    for (given, follow, want, exists) in [
        ("/", Follow::Last, "", true),
        ("bin/sh", Follow::No, "usr/bin/sh", true),
        ("bin", Follow::No, "bin", true),
        ("bin", Follow::Last, "usr/bin", true),
        ("abs", Follow::Last, "usr/bin/sh", true),
        ("out/../../../usr/up", Follow::Last, "usr/bin/sh", true),
        ("bin/../up", Follow::No, "usr/up", true),
        ("new", Follow::Last, "usr/new", false),
        ("usr/nothing", Follow::No, "usr/nothing", false),
    ] {
        let found = trees.resolve(&root, given.as_bytes(), follow).unwrap();
        assert_eq!(found.path.as_bytes(), want.as_bytes(), "{given}");
        assert_eq!(found.node.is_some(), exists, "{given}");
    }
}

#[test]
fn what_leads_nowhere() {
    let (trees, root) = tree();
    let error = |path: &str| trees.resolve(&root, path.as_bytes(), Follow::Last).unwrap_err().to_string();
    let errors = ["loop", "dangling", "usr/bin/sh/x", "a\0b"].map(error);
    insta::assert_snapshot!(errors.join("\n"), @r"
    too many levels of symbolic links in `loop`
    `/nowhere` does not exist
    `/usr/bin/sh` is not a directory
    invalid path `a\x00b`: want a relative path without `.`, `..`, empty components or NUL
    ");
    assert!(matches!(trees.list(&root, &TreePath::parse(b"abs").unwrap()), Err(TreeError::NotADirectory(_))));
}
