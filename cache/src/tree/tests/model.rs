//! Random layers: incremental digests against full rebuilds, differences against what they were made from.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::layer::{Change, Entries, LayerEntry};
use crate::tree::{FileDigest, Kind, MemoryNodes, Node, NodeId, Select, TreePath, Trees};

/// A file system as a plain map.
type Model = BTreeMap<TreePath, Node>;

fn any_path() -> impl Strategy<Value = TreePath> {
    vec(prop_oneof!["a", "b", "a-", "c"], 1..4)
        .prop_map(|names| TreePath::parse(names.join("/").as_bytes()).unwrap())
}

fn any_node() -> impl Strategy<Value = Node> {
    let kind = prop_oneof![
        3 => Just(Kind::Dir),
        3 => (0..3u8).prop_map(|n| Kind::File { size: n.into(), content: FileDigest::of(&[n]) }),
        1 => Just(Kind::Symlink { target: b"a"[..].into() }),
        1 => Just(Kind::Fifo),
    ];
    let group = prop_oneof![3 => Just(None), 1 => Just(Some(TreePath::parse(b"a").unwrap()))];
    (kind, prop_oneof![Just(0o644u32), Just(0o755)], prop_oneof![Just(None), Just(Some(5i64))], group)
        .prop_map(|(kind, mode, mtime, link_group)| {
            let link_group = link_group.filter(|_| kind != Kind::Dir);
            Node { kind, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new(), link_group }
        })
}

/// A consistent layer: what is below a whiteout or a non-directory is dropped, parents are added.
fn any_layer() -> impl Strategy<Value = Entries> {
    vec((any_path(), proptest::option::weighted(0.8, any_node())), 0..12).prop_map(|list| {
        let wanted: BTreeMap<_, _> = list.into_iter().collect();
        let mut kept: BTreeMap<TreePath, Option<Node>> = BTreeMap::new();
        for (path, node) in wanted {
            let parents: Vec<_> =
                std::iter::successors(path.parent(), TreePath::parent).filter(|p| !p.is_root()).collect();
            if parents.iter().any(|p| kept.get(p).is_some_and(|n| n.as_ref().is_none_or(|n| !n.is_dir()))) {
                continue;
            }
            for parent in parents {
                kept.entry(parent).or_insert_with(|| Some(Node::plain_dir()));
            }
            kept.insert(path, node);
        }
        entries(kept.into_iter().map(|(path, node)| (path, node.map_or(Change::Whiteout, put))))
    })
}

fn put(node: Node) -> Change {
    let mtime = node.mtime.unwrap_or(9);
    Change::Put { node, mtime }
}

fn entries(list: impl IntoIterator<Item = (TreePath, Change)>) -> Entries {
    Entries::new(list.into_iter().map(|(path, change)| LayerEntry { path, change }).collect())
}

/// What overlayfs would show.
fn apply_to_model(model: &mut Model, layer: &Entries) {
    for LayerEntry { path, change } in layer.iter() {
        let node = match change {
            Change::Whiteout => None,
            Change::Put { node, .. } => Some(node.clone()),
        };
        let stays = node.as_ref().is_some_and(Node::is_dir) && model.get(path).is_some_and(Node::is_dir);
        if !stays {
            model.retain(|p, _| !p.starts_with(path));
        }
        model.extend(node.map(|node| (path.clone(), node)));
    }
}

fn rebuild(trees: &Trees, model: &Model) -> NodeId {
    let list = model.iter().map(|(path, node)| (path.clone(), put(node.clone())));
    trees.apply(Trees::empty(), &entries(list)).unwrap()
}

fn listing(trees: &Trees, root: &NodeId) -> Model {
    let mut model = Model::new();
    trees
        .walk(root, &TreePath::root(), &mut |path, node| {
            model.insert(path.clone(), node.clone());
            true
        })
        .unwrap();
    model
}

fn new_trees() -> Trees {
    Trees::new(Arc::new(MemoryNodes::default()))
}

proptest! {
    #[test]
    fn incremental_equals_rebuilt(layers in vec(any_layer(), 1..5)) {
        let trees = new_trees();
        let mut model = Model::new();
        let mut root = Trees::empty();
        for layer in &layers {
            root = trees.apply(root, layer).unwrap();
            apply_to_model(&mut model, layer);
            prop_assert_eq!(root, rebuild(&new_trees(), &model));
        }
        prop_assert_eq!(listing(&trees, &root), model);
    }

    #[test]
    fn a_difference_leads_from_one_to_the_other(a in vec(any_layer(), 1..3), b in vec(any_layer(), 1..3)) {
        let trees = new_trees();
        let a = trees.apply_all(Trees::empty(), &a).unwrap();
        let b = trees.apply_all(Trees::empty(), &b).unwrap();
        let diff = trees.diff(&a, &b).unwrap();
        prop_assert!(diff.is_sorted_by(|x, y| x.0 < y.0));
        prop_assert_eq!(diff.is_empty(), a == b);
        prop_assert_eq!(trees.apply(a, &entries(diff)).unwrap(), b);
    }

    #[test]
    fn the_copy_digest_leaves_out_times_and_links(layers in vec(any_layer(), 1..3)) {
        let trees = new_trees();
        let root = trees.apply_all(Trees::empty(), &layers).unwrap();
        let plain: Model = listing(&trees, &root)
            .into_iter()
            .map(|(path, node)| (path, Node { mtime: Some(1), link_group: None, ..node }))
            .collect();
        let other = rebuild(&trees, &plain);
        for path in plain.keys().chain([&TreePath::root()]) {
            let digest = trees.copy_digest(&root, path).unwrap();
            prop_assert_eq!(digest, trees.copy_digest(&other, path).unwrap());
            for all in [Select::All, Select::Descend] {
                prop_assert_eq!(digest, trees.filtered_copy_digest(&root, path, &mut |_, _| all).unwrap());
            }
        }
    }

    #[test]
    fn a_filter_gives_the_digest_of_what_it_leaves(layers in vec(any_layer(), 1..4), skipped in any_path()) {
        let trees = new_trees();
        let root = trees.apply_all(Trees::empty(), &layers).unwrap();
        let left: Model = listing(&trees, &root).into_iter().filter(|(path, _)| !path.starts_with(&skipped)).collect();
        let by_filter = trees
            .filtered_copy_digest(&root, &TreePath::root(), &mut |path, _| {
                if *path == skipped { Select::Skip } else { Select::Descend }
            })
            .unwrap();
        prop_assert_eq!(by_filter, trees.copy_digest(&rebuild(&trees, &left), &TreePath::root()).unwrap());
    }

    #[test]
    fn encoded_entries_come_back(layer in any_layer()) {
        prop_assert_eq!(&Entries::decode(&layer.encode()).unwrap(), &layer);
    }

    #[test]
    fn decoding_garbage_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Entries::decode(&bytes);
        let _ = crate::tree::codec::DirNode::decode(&bytes);
    }
}

#[test]
fn directories_that_hold_nothing_selected_do_not_count() {
    let trees = new_trees();
    let file = Node { kind: Kind::File { size: 1, content: FileDigest::of(b"x") }, ..Node::plain_dir() };
    let model = |list: &[(&str, &Node)]| -> Model {
        list.iter().map(|(p, n)| (TreePath::parse(p.as_bytes()).unwrap(), (*n).clone())).collect()
    };
    let dir = Node::plain_dir();
    let full = rebuild(&trees, &model(&[("a", &dir), ("a/x.c", &file), ("b", &dir), ("b/y.h", &file)]));
    let want = rebuild(&trees, &model(&[("a", &dir), ("a/x.c", &file)]));
    let only_c = &mut |path: &TreePath, node: &Node| match node.kind {
        Kind::Dir => Select::IfNotEmpty,
        _ if path.name().ends_with(b".c") => Select::All,
        _ => Select::Skip,
    };
    assert_eq!(
        trees.filtered_copy_digest(&full, &TreePath::root(), only_c).unwrap(),
        trees.copy_digest(&want, &TreePath::root()).unwrap()
    );
}

#[test]
fn only_touched_nodes_are_added() {
    let store = Arc::new(MemoryNodes::default());
    let trees = Trees::new(store.clone());
    let file = |n: u8| {
        put(Node { kind: Kind::File { size: 1, content: FileDigest::of(&[n]) }, ..Node::plain_dir() })
    };
    let path = |d: u8, f: u8| TreePath::parse(format!("d{d}/f{f}").as_bytes()).unwrap();
    let all = (0..50).flat_map(|d| (0..50).map(move |f| (d, f)));
    let root = trees
        .apply(
            Trees::empty(),
            &entries(all.map(|(d, f)| (path(d, f), file(d.wrapping_mul(50).wrapping_add(f))))),
        )
        .unwrap();
    let before = store.len();
    trees.apply(root, &entries([(path(7, 7), file(255))])).unwrap();
    assert_eq!(store.len(), before + 2, "the directory and the root");
}
