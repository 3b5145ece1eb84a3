//! Walks of small directories.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use solver::pattern::PatternMatcher;

use super::*;
use crate::tree::{Kind, MemoryNodes, Node, NodeId, NodeStore, NodeStoreError, Trees};

static RUN: AtomicBool = AtomicBool::new(false);

struct Case {
    dir: tempfile::TempDir,
    cache: MemoryStatCache,
    trees: Arc<Trees>,
}

impl Case {
    fn new(files: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file.trim_end_matches('/'));
            if file.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, file).unwrap();
            }
        }
        let trees = Arc::new(Trees::new(Arc::new(MemoryNodes::default())));
        Self { dir, cache: MemoryStatCache::default(), trees }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn walk_with(
        &self,
        ignored: &PatternMatcher,
        include: &[&str],
        follow: &[&str],
    ) -> Result<Context, ContextError> {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        walk(&WalkRequest {
            dir: Arc::new(OwnedFd::from(File::open(self.path()).unwrap())),
            ignored,
            include_patterns: &strings(include),
            follow_paths: &strings(follow),
            stat_cache: &self.cache,
            trees: Arc::clone(&self.trees),
            threads: 2,
            thread_init: None,
            cancel: &RUN,
        })
    }

    fn walk(&self) -> Context {
        self.walk_with(&PatternMatcher::default(), &[], &[]).unwrap()
    }

    fn nodes(&self, context: &Context) -> BTreeMap<String, Node> {
        let mut nodes = BTreeMap::new();
        let root = crate::tree::TreePath::root();
        self.trees
            .walk(&context.root, &root, &mut |path, node| {
                nodes.insert(String::from_utf8_lossy(path.as_bytes()).into_owned(), node.clone());
                true
            })
            .unwrap();
        nodes
    }

    fn names(&self, context: &Context) -> Vec<String> {
        self.nodes(context).into_keys().collect()
    }

    /// Sets all times so far back that the stat cache trusts them; change times need waiting instead.
    fn settle(&self) {
        std::thread::sleep(Duration::from_millis(2100));
    }
}

fn patterns(list: &[&str]) -> PatternMatcher {
    PatternMatcher::new(list).unwrap()
}

#[test]
fn nodes_are_what_the_client_has_but_for_owner_and_attributes() {
    let case = Case::new(&["dir/file", "empty/"]);
    fs::set_permissions(case.path().join("dir/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("../dir/file", case.path().join("empty/link")).unwrap();
    fs::hard_link(case.path().join("dir/file"), case.path().join("dir/again")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(case.path().join("socket")).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
    File::options().write(true).open(case.path().join("dir/file")).unwrap().set_modified(old).unwrap();

    let context = case.walk();
    let nodes = case.nodes(&context);
    let file = &nodes["dir/file"];
    assert_eq!((file.mode, file.uid, file.gid, file.mtime), (0o4751, 0, 0, Some(1_234_567_890_987_654_321)));
    assert_eq!(
        file.link_group,
        Some("dir/again").map(|p| crate::tree::TreePath::parse(p.as_bytes()).unwrap())
    );
    assert_eq!(nodes["empty/link"].link_target(), Some(&b"../dir/file"[..]));
    assert!(matches!(nodes["socket"].kind, Kind::File { size: 0, .. }));
    assert_eq!(context.stats.entries, 6);
    assert_eq!(
        context.open(&crate::tree::TreePath::parse(b"dir/file").unwrap()).unwrap().metadata().unwrap().len(),
        8
    );
}

#[test]
fn ignore_rules_apply_while_walking() {
    let case =
        Case::new(&["src/main.c", "src/sub/obj.o", "src/sub/obj.c", "conf/a.ini", "conf/a.cfg", "drop/x"]);
    let rules = patterns(&["*", "!src", "!conf/*.ini", "src/**/*.o"]);
    let context = case.walk_with(&rules, &[], &[]).unwrap();
    let want = ["conf", "conf/a.ini", "src", "src/main.c", "src/sub", "src/sub/obj.c"];
    assert_eq!(case.names(&context), want);
}

#[test]
fn an_unreadable_ignored_directory_does_not_matter() {
    let case = Case::new(&["a/b", "kept"]);
    fs::set_permissions(case.path().join("a"), fs::Permissions::from_mode(0o000)).unwrap();
    let context = case.walk_with(&patterns(&["a"]), &[], &[]).unwrap();
    assert_eq!(case.names(&context), ["kept"]);
}

#[test]
fn followed_paths_bring_links_and_what_they_lead_to() {
    let case = Case::new(&["real/file.txt", "real/leaf", "other/x", "top.txt"]);
    symlink("real/file.txt", case.path().join("to-file")).unwrap();
    symlink("real", case.path().join("to-dir")).unwrap();
    symlink("/to-file", case.path().join("chain")).unwrap();
    symlink("../../../real/leaf", case.path().join("climbs")).unwrap();
    symlink("loop-b", case.path().join("loop-a")).unwrap();
    symlink("loop-a", case.path().join("loop-b")).unwrap();
    for (follow, want) in [
        (&["to-file"][..], &["real", "real/file.txt", "to-file"][..]),
        (&["to-dir/leaf"], &["real", "real/leaf", "to-dir"]),
        (&["chain"], &["chain", "real", "real/file.txt", "to-file"]),
        (&["climbs"], &["climbs", "real", "real/leaf"]),
        (&["to-*"], &["real", "real/file.txt", "real/leaf", "to-dir", "to-file"]),
        (&["loop-a"], &["loop-a", "loop-b"]),
        (&["/top.txt", "missing"], &["top.txt"]),
        (&["to-dir/lea*"], &["real", "real/leaf", "to-dir"]),
        (&["../other"], &["other", "other/x"]),
    ] {
        let context = case.walk_with(&PatternMatcher::default(), &[], follow).unwrap();
        assert_eq!(case.names(&context), want, "{follow:?}");
    }
    assert_eq!(case.walk_with(&PatternMatcher::default(), &[], &["."]).unwrap().root, case.walk().root);
}

#[test]
fn a_file_with_several_names_is_counted_once() {
    let case = Case::new(&["dir/first"]);
    fs::write(case.path().join("dir/first"), "12345").unwrap();
    fs::write(case.path().join("other"), "123").unwrap();
    fs::hard_link(case.path().join("dir/first"), case.path().join("second")).unwrap();
    fs::hard_link(case.path().join("dir/first"), case.path().join("dir/third")).unwrap();
    let stats = case.walk().stats;
    assert_eq!((stats.entries, stats.bytes), (5, 8));
}

#[test]
fn links_out_of_the_context_are_never_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("canary"), "secret").unwrap();
    let case = Case::new(&["in"]);
    symlink(outside.path(), case.path().join("out")).unwrap();
    let follow = ["out/canary", "out"];
    let context = case.walk_with(&PatternMatcher::default(), &[], &follow).unwrap();
    assert_eq!(case.names(&context), ["out"]);
    let through = crate::tree::TreePath::parse(b"out/canary").unwrap();
    assert!(context.open(&through).is_err());
}

#[test]
fn the_stat_cache_saves_hashing_but_never_hides_a_change() {
    let case = Case::new(&["a", "b", "sub/c"]);
    assert_eq!(case.walk().stats.hashed, 3);
    assert_eq!(case.walk().stats.hashed, 3, "fresh files are not trusted");
    case.settle();
    let before = case.walk();
    assert_eq!(before.stats.hashed, 3);
    assert_eq!(case.walk().stats.hashed, 0);

    // The same size, and the modification time put back: only the change time tells.
    let path = case.path().join("b");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "B").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let after = case.walk();
    assert_ne!(after.root, before.root);
    assert_eq!(after.stats.hashed, 1);
    // A walk that sees only part of a directory does not forget the rest.
    case.settle();
    case.walk_with(&PatternMatcher::default(), &[], &["b"]).unwrap();
    assert_eq!(case.walk().stats.hashed, 0);
}

/// A store of nodes that can lose some.
#[derive(Debug, Default)]
struct Losing(Mutex<BTreeMap<Vec<u8>, Bytes>>);

impl NodeStore for Losing {
    fn get(&self, id: &NodeId) -> Result<Option<Bytes>, NodeStoreError> {
        Ok(self.0.lock().unwrap().get(&id.digest().as_bytes()[..]).cloned())
    }

    fn put(&self, nodes: Vec<(NodeId, Bytes)>) -> Result<(), NodeStoreError> {
        self.0
            .lock()
            .unwrap()
            .extend(nodes.into_iter().map(|(id, node)| (id.digest().as_bytes().to_vec(), node)));
        Ok(())
    }
}

#[test]
fn an_unchanged_context_heals_a_torn_tree() {
    let mut case = Case::new(&["a/b/c"]);
    let store = Arc::new(Losing::default());
    case.trees = Arc::new(Trees::new(store.clone()));
    let root = case.walk().root;
    store.0.lock().unwrap().retain(|id, _| id == root.digest().as_bytes());
    let all = |path: &crate::tree::TreePath| case.trees.walk(&root, path, &mut |_, _| true);
    assert!(all(&crate::tree::TreePath::root()).is_err(), "found out by whoever needs the node");
    assert_eq!(case.walk().root, root);
    all(&crate::tree::TreePath::root()).unwrap();
}

#[test]
fn a_cancelled_walk_ends() {
    let case = Case::new(&["a"]);
    let cancel = AtomicBool::new(true);
    let result = walk(&WalkRequest {
        dir: Arc::new(OwnedFd::from(File::open(case.path()).unwrap())),
        ignored: &PatternMatcher::default(),
        include_patterns: &[],
        follow_paths: &[],
        stat_cache: &case.cache,
        trees: Arc::clone(&case.trees),
        threads: 2,
        thread_init: None,
        cancel: &cancel,
    });
    assert!(matches!(result, Err(ContextError::Cancelled)));
}
