//! How selections differ between trees.

use std::sync::Arc;

use solver::Selection;

use crate::fileop::difference::differences;
use crate::layer::{Change, Entries, LayerEntry};
use crate::tree::{FileDigest, Kind, MemoryNodes, Node, NodeId, TreePath, Trees};

fn file(text: &str, mode: u32) -> Node {
    let kind = Kind::File { size: text.len() as u64, content: FileDigest::of(text.as_bytes()) };
    Node { kind, mode, ..Node::plain_dir() }
}

fn tree(trees: &Trees, objects: &[(&str, Node)]) -> NodeId {
    let entry = |(path, node): &(&str, Node)| LayerEntry {
        path: TreePath::parse(path.as_bytes()).unwrap(),
        change: Change::Put { node: node.clone(), mtime: 0 },
    };
    trees.apply(Trees::empty(), &Entries::new(objects.iter().map(entry).collect())).unwrap()
}

#[test]
fn each_difference_is_told_once() {
    let trees = Trees::new(Arc::<MemoryNodes>::default());
    let dir = Node::plain_dir;
    let late = |node: Node| Node { mtime: Some(7), ..node };
    let old = tree(
        &trees,
        &[
            ("gone", dir()),
            ("gone/x", file("x", 0o644)),
            ("src", dir()),
            ("src/content", file("1", 0o644)),
            ("src/kind", file("1", 0o644)),
            ("src/mode", file("1", 0o644)),
            ("src/same", file("1", 0o644)),
            ("src/time", file("1", 0o644)),
        ],
    );
    let link = Node { kind: Kind::Symlink { target: b"to".to_vec().into() }, mode: 0o777, ..dir() };
    let new = tree(
        &trees,
        &[
            ("src", dir()),
            ("src/content", file("2", 0o644)),
            ("src/kind", link),
            ("src/mode", file("1", 0o755)),
            ("src/new", dir()),
            ("src/new/y", file("y", 0o644)),
            ("src/same", file("1", 0o644)),
            ("src/time", late(file("1", 0o644))),
        ],
    );
    let digest = |text: &str| format!("{:?}", FileDigest::of(text.as_bytes()));
    let told = |selection: Selection| -> Vec<String> {
        let found = differences(&trees, &old, &new, &[selection]).unwrap();
        let line = |d: &super::super::difference::Difference| {
            let text = |side: &Option<String>| side.clone().unwrap_or_default();
            format!("{} {:?} {}>{}", d.path.as_path().display(), d.by, text(&d.old), text(&d.new))
        };
        found.iter().map(line).collect()
    };
    let of = |path: &str| Selection { path: path.to_owned(), wildcard: true, ..Selection::default() };
    let (one, two, y) = (digest("1"), digest("2"), digest("y"));
    assert_eq!(
        told(of("/")),
        [
            "gone Removed directory>".to_owned(),
            format!("src/content Content {one}>{two}"),
            format!("src/kind Type {one}>link to to"),
            "src/mode Mode 0644>0755".to_owned(),
            format!("src/new/y Added >{y}"),
        ]
    );
    assert_eq!(told(of("/src/m*")), ["src/mode Mode 0644>0755"]);
    assert_eq!(told(of("/src/same")), [""; 0]);
    assert_eq!(told(of("/absent/*")), [""; 0]);
    let few =
        Selection { exclude_patterns: vec!["content".into(), "new".into(), "kind".into()], ..of("/src") };
    assert_eq!(told(few), ["src/mode Mode 0644>0755"]);
}
