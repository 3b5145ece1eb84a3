//! COPY, as the conformance cases `copy-*`, `chmod-octal`, `parents-*` and `exclude-*` have recorded BuildKit.

use solver::op::{ActionInput, ChownOpt, CopyAction, UserOpt};

use super::world::*;

#[track_caller]
fn check(
    base: &str,
    files: &[(&str, &str, u32)],
    actions: Vec<CopyAction>,
    want: &[&str],
) -> Option<Outcome> {
    let world = world()?;
    let chain = world.chain(base);
    let kinds = actions.into_iter().map(kind).collect();
    let got = world.run(&chain, &world.context(files), kinds).unwrap();
    assert_eq!(short(&got.tree), want);
    Some(got)
}

#[track_caller]
fn check_error(base: &str, files: &[(&str, &str, u32)], action: CopyAction, want: &str) {
    let Some(world) = world() else { return };
    let chain = world.chain(base);
    let got = world.run(&chain, &world.context(files), vec![kind(action)]);
    assert_eq!(got.err().as_deref(), Some(want));
}

#[test]
fn a_file_to_a_file_or_a_directory() {
    let files = [("note.txt", "note", 0o644)];
    let base = "d 0750 0:0 present\nf 0600 0:0 present/over.txt old";
    let got = check(
        base,
        &files,
        vec![
            copy("note.txt", "/renamed.txt"),
            copy("note.txt", "/made/on/the/way/"),
            copy("note.txt", "/present"),
            copy("note.txt", "/present/again/."),
            copy("note.txt", "/present/over.txt"),
        ],
        &[
            "made 755 0:0 d",
            "made/on 755 0:0 d",
            "made/on/the 755 0:0 d",
            "made/on/the/way 755 0:0 d",
            "made/on/the/way/note.txt 644 0:0",
            "present 750 0:0 d",
            "present/again 755 0:0 d",
            "present/again/note.txt 644 0:0",
            "present/note.txt 644 0:0",
            "present/over.txt 644 0:0",
            "renamed.txt 644 0:0",
        ],
    );
    let Some(got) = got else { return };
    assert!(got.layer.contains(&"present/over.txt".to_owned()));
}

#[test]
fn the_contents_of_a_directory() {
    let files = [
        ("tree/", "", 0o711),
        ("tree/top.txt", "top", 0o644),
        ("tree/in/", "", 0o770),
        ("tree/in/leaf.txt", "leaf", 0o644),
        ("tree/hollow/inner/", "", 0o755),
        ("tree/hollow/", "", 0o700),
    ];
    let base = "d 0701 3:3 there\nd 0701 3:3 there/in";
    check(
        base,
        &files,
        vec![copy("tree", "/plain"), copy("tree/in", "/deep/er/"), copy("tree/", "/there")],
        &[
            "deep 755 0:0 d",
            "deep/er 755 0:0 d",
            "deep/er/leaf.txt 644 0:0",
            "plain 755 0:0 d",
            "plain/hollow 700 0:0 d",
            "plain/hollow/inner 755 0:0 d",
            "plain/in 770 0:0 d",
            "plain/in/leaf.txt 644 0:0",
            "plain/top.txt 644 0:0",
            "there 701 3:3 d",
            "there/hollow 700 0:0 d",
            "there/hollow/inner 755 0:0 d",
            "there/in 770 0:0 d",
            "there/in/leaf.txt 644 0:0",
            "there/top.txt 644 0:0",
        ],
    );
}

#[test]
fn octal_modes_also_make_parents() {
    let files = [
        ("tree/f", "f", 0o644),
        ("tree/link", "-> f", 0),
        ("tree/sub/", "", 0o700),
        ("tree/sub/g", "g", 0o600),
    ];
    let mode = |src, dest, mode| CopyAction { mode: Some(mode), ..copy(src, dest) };
    check(
        "d 0701 0:0 co-there",
        &files,
        vec![
            mode("tree/f", "/co/f", 0o640),
            mode("tree/f", "/co-su", 0o4755),
            mode("tree", "/co-tree", 0o1777),
            mode("tree", "/co-there", 0o750),
        ],
        &[
            "co 640 0:0 d",
            "co/f 640 0:0",
            "co-su 4755 0:0",
            "co-there 701 0:0 d",
            "co-there/f 750 0:0",
            "co-there/link 777 0:0 l -> f",
            "co-there/sub 750 0:0 d",
            "co-there/sub/g 750 0:0",
            "co-tree 777 0:0 d",
            "co-tree/f 1777 0:0",
            "co-tree/link 777 0:0 l -> f",
            "co-tree/sub 1777 0:0 d",
            "co-tree/sub/g 1777 0:0",
        ],
    );
}

#[test]
fn symbolic_modes_leave_parents() {
    let mode_str = |text: &str, src, dest| CopyAction { mode_str: text.to_owned(), ..copy(src, dest) };
    check(
        "d 0755 0:0 x",
        &[("f", "f", 0o644), ("t/", "", 0o700), ("t/g", "g", 0o640)],
        vec![mode_str("u=rw,go=", "f", "/way/f"), mode_str("a+X", "t", "/x")],
        &["way 755 0:0 d", "way/f 600 0:0", "x 755 0:0 d", "x/g 640 0:0"],
    );
}

#[test]
fn owners_by_name_and_id() {
    let base = "d 0755 0:0 etc\nf 0644 0:0 etc/group staff:x:50:\nd 0755 3:3 there\nl etc/passwd -> /real\n\
                f 0644 0:0 real user:x:1000:1000::/:";
    let name = |name: &str| Some(UserOpt::Name { name: name.to_owned(), input: ActionInput::Vertex(0) });
    let owned = |user, group, dest| CopyAction { owner: Some(ChownOpt { user, group }), ..copy("f", dest) };
    let got = check(
        base,
        &[("f", "f", 0o644)],
        vec![
            owned(name("user"), name("staff"), "/there/a"),
            owned(name("user"), None, "/there/b"),
            owned(name("nobody"), None, "/there/c"),
            owned(name("user"), name("nobody"), "/there/d"),
            owned(Some(UserOpt::Id(7)), None, "/new/e"),
            owned(Some(UserOpt::Id(2_097_153)), Some(UserOpt::Id(2_147_483_647)), "/there/f"),
        ],
        &[
            "etc 755 0:0 d",
            "etc/group 644 0:0",
            "etc/passwd 777 0:0 l -> /real",
            "new 755 7:7 d",
            "new/e 644 7:7",
            "real 644 0:0",
            "there 755 3:3 d",
            "there/a 644 1000:50",
            "there/b 644 1000:1000",
            "there/c 644 0:0",
            "there/d 644 1000:1000",
            "there/f 644 2097153:2147483647",
        ],
    );
    drop(got);
    let nameless = ChownOpt {
        user: Some(UserOpt::Name { name: "user".into(), input: ActionInput::Scratch }),
        group: None,
    };
    let action = CopyAction { owner: Some(nameless), ..copy("f", "/x") };
    check_error("", &[("f", "f", 0o644)], action, "invalid user index: -1");
}

#[test]
fn links_as_source_and_in_trees() {
    let files = [
        ("real/file.txt", "file", 0o644),
        ("real/leaf", "leaf", 0o644),
        ("to-file", "-> real/file.txt", 0),
        ("to-dir", "-> real", 0),
        ("climbs", "-> ../../../real/file.txt", 0),
        ("t/loop", "-> loop", 0),
        ("t/dangling", "-> no/such", 0),
    ];
    check(
        "",
        &files,
        vec![
            copy("to-file", "/in/"),
            copy("to-dir", "/dir"),
            copy("climbs", "/climbs"),
            copy("to-dir/lea*", "/wild/"),
            copy("to-*", "/all/"),
            copy("t", "/t"),
        ],
        &[
            "all 755 0:0 d",
            "all/file.txt 644 0:0",
            "all/leaf 644 0:0",
            "all/to-file 644 0:0",
            "climbs 644 0:0",
            "dir 755 0:0 d",
            "dir/file.txt 644 0:0",
            "dir/leaf 644 0:0",
            "in 755 0:0 d",
            "in/to-file 644 0:0",
            "t 755 0:0 d",
            "t/dangling 777 0:0 l -> no/such",
            "t/loop 777 0:0 l -> loop",
            "wild 755 0:0 d",
            "wild/leaf 644 0:0",
        ],
    );
}

#[test]
fn a_destination_link_is_followed_within_the_root() {
    let base = "d 0755 0:0 a\nl a/up -> ../../../../out\nl top -> /../../abs";
    check(
        base,
        &[("f", "f", 0o644)],
        vec![copy("f", "/a/up/f"), copy("f", "/top"), copy("f", "/a/up/../beside")],
        &[
            "a 755 0:0 d",
            "a/beside 644 0:0",
            "a/up 777 0:0 l -> ../../../../out",
            "abs 644 0:0",
            "out 755 0:0 d",
            "out/f 644 0:0",
            "top 777 0:0 l -> /../../abs",
        ],
    );
}

#[test]
fn wildcards() {
    let files = [
        ("main.cfg", "m", 0o644),
        (".hidden.cfg", "h", 0o644),
        ("item-a.dat", "a", 0o644),
        ("item-d.dat", "d", 0o644),
        ("box-1/p.bin", "p", 0o644),
        ("box-1/sub/q.bin", "q", 0o644),
        ("box-2/r.txt", "r", 0o644),
        ("st*r", "s", 0o644),
    ];
    check(
        "",
        &files,
        vec![
            copy("*.cfg", "/star/"),
            copy("item-[^a-c].dat", "/negated/"),
            copy("box-*/*.bin", "/middle/"),
            copy("box-*", "/dirs/"),
            copy("**/*.bin", "/two/"),
            copy(r"s*\*r", "/escaped/"),
            copy("*.absent", "/none/"),
        ],
        &[
            "dirs 755 0:0 d",
            "dirs/p.bin 644 0:0",
            "dirs/r.txt 644 0:0",
            "dirs/sub 755 0:0 d",
            "dirs/sub/q.bin 644 0:0",
            "escaped 755 0:0 d",
            "escaped/st*r 644 0:0",
            "middle 755 0:0 d",
            "middle/p.bin 644 0:0",
            "negated 755 0:0 d",
            "negated/item-d.dat 644 0:0",
            "star 755 0:0 d",
            "star/.hidden.cfg 644 0:0",
            "star/main.cfg 644 0:0",
            "two 755 0:0 d",
            "two/p.bin 644 0:0",
        ],
    );
    check_error("", &files, copy("nowhere/*.txt", "/x/"), "lstat /nowhere: no such file or directory");
    let strict = CopyAction { allow_empty_wildcard: false, ..copy("*.absent", "/x/") };
    check_error("", &files, strict, "/*.absent not found");
    check_error("", &files, copy(r"st\*r", "/x/"), r"lstat /st\*r: no such file or directory");
}

#[test]
fn conflicts_of_files_and_directories() {
    let base = "d 0755 0:0 d\nd 0755 0:0 d/thing\nf 0644 0:0 file f";
    let files = [("thing-file", "t", 0o644), ("tree/file/leaf", "x", 0o644), ("clash/thing", "y", 0o644)];
    for (src, dest, want) in [
        ("tree", "/file", "cannot copy to non-directory: /file"),
        ("thing-file", "/file/", "mkdir /file: not a directory"),
        ("thing-file", "/file/below", "mkdir /file: not a directory"),
        ("clash", "/d", "cannot replace to directory /d/thing with file"),
        ("tree", "/", "cannot copy to non-directory: /file"),
        ("missing", "/x", "lstat /missing: no such file or directory"),
    ] {
        check_error(base, &files, copy(src, dest), want);
    }
    let replaced = CopyAction { always_replace_existing_dest_paths: true, ..copy("clash", "/d") };
    check(base, &files, vec![replaced], &["d 755 0:0 d", "d/thing 644 0:0", "file 644 0:0"]);
}

#[test]
fn files_replace_links_in_a_copied_tree() {
    let base = "d 0755 0:0 d\nl d/x -> /victim\nf 0644 0:0 victim v";
    check(
        base,
        &[("t/x", "new", 0o600)],
        vec![copy("t", "/d")],
        &["d 755 0:0 d", "d/x 600 0:0", "victim 644 0:0"],
    );
    check_error(base, &[("t/x/y", "new", 0o600)], copy("t", "/d"), "cannot copy to non-directory: /d/x");
}

#[test]
fn exclude_lists() {
    let files = [
        ("tree/main.txt", "m", 0o644),
        ("tree/a.log", "a", 0o644),
        ("tree/sub/b.log", "b", 0o644),
        ("tree/sub/c.txt", "c", 0o644),
        ("tree/sub/deep/d.log", "d", 0o644),
    ];
    let without = |list: &[&str], src, dest| CopyAction {
        exclude_patterns: list.iter().map(|s| (*s).to_owned()).collect(),
        ..copy(src, dest)
    };
    check(
        "",
        &files,
        vec![
            without(&["**/*.log"], "tree", "/e3/"),
            without(&["tree/sub"], ".", "/e5/"),
            without(&["/sub/"], "tree/sub", "/e6/"),
            without(&["sub", "!sub/deep"], "tree", "/e7/"),
            without(&["main.txt"], "tree/main.txt", "/e8/"),
        ],
        &[
            "e3 755 0:0 d",
            "e3/main.txt 644 0:0",
            "e3/sub 755 0:0 d",
            "e3/sub/c.txt 644 0:0",
            "e3/sub/deep 755 0:0 d",
            "e5 755 0:0 d",
            "e5/tree 755 0:0 d",
            "e5/tree/a.log 644 0:0",
            "e5/tree/main.txt 644 0:0",
            "e6 755 0:0 d",
            "e6/b.log 644 0:0",
            "e6/c.txt 644 0:0",
            "e6/deep 755 0:0 d",
            "e6/deep/d.log 644 0:0",
            "e7 755 0:0 d",
            "e7/a.log 644 0:0",
            "e7/main.txt 644 0:0",
            "e7/sub 755 0:0 d",
            "e7/sub/deep 755 0:0 d",
            "e7/sub/deep/d.log 644 0:0",
            "e8 755 0:0 d",
            "e8/main.txt 644 0:0",
        ],
    );
}

#[test]
fn parents_come_along_where_something_matches() {
    let files = [
        ("src/", "", 0o711),
        ("src/lib/a.txt", "a", 0o644),
        ("src/b.txt", "b", 0o644),
        ("src/one/two/t.txt", "t", 0o644),
        ("src/nothing/x.bin", "x", 0o644),
    ];
    let parents = |list: &[&str], dest| CopyAction {
        include_patterns: list.iter().map(|s| (*s).to_owned()).collect(),
        ..copy("/", dest)
    };
    check(
        "",
        &files,
        vec![
            parents(&["src/lib/a.txt"], "/p1/"),
            parents(&["src/**/*.txt"], "/p2/"),
            parents(&["src/?ne"], "/p3/"),
            parents(&["src/*.absent"], "/p4/"),
        ],
        &[
            "p1 755 0:0 d",
            "p1/src 711 0:0 d",
            "p1/src/lib 755 0:0 d",
            "p1/src/lib/a.txt 644 0:0",
            "p2 755 0:0 d",
            "p2/src 711 0:0 d",
            "p2/src/b.txt 644 0:0",
            "p2/src/lib 755 0:0 d",
            "p2/src/lib/a.txt 644 0:0",
            "p2/src/one 755 0:0 d",
            "p2/src/one/two 755 0:0 d",
            "p2/src/one/two/t.txt 644 0:0",
            "p3 755 0:0 d",
            "p3/src 711 0:0 d",
            "p3/src/one 755 0:0 d",
            "p3/src/one/two 755 0:0 d",
            "p3/src/one/two/t.txt 644 0:0",
            "p4 755 0:0 d",
        ],
    );
}

#[test]
fn times_are_the_sources_and_equal_files_are_left_out() {
    let Some(world) = world() else { return };
    let dir = world.files(&[("old", "old", 0o644), ("sub/new", "new", 0o644)]);
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_890_987_654_321);
    std::fs::File::options().write(true).open(dir.join("old")).unwrap().set_modified(old).unwrap();
    let input = super::super::FileInput::Context(world.walk(&dir));
    let first = world.run(&world.scratch(), &input, copies(&[("old", "/a/old")])).unwrap();
    let found = first.chain.base.view.get(&path("a/old")).unwrap().unwrap();
    assert_eq!(found.stat.mtime, 1_234_567_890_987_654_321);

    let again = world.run(&first.chain, &input, copies(&[("old", "/a/old")])).unwrap();
    assert!(!again.layer.contains(&"a/old".to_owned()), "{:?}", again.layer);
    assert_eq!(again.output.layer.root, first.output.layer.root);

    let stamped = CopyAction { timestamp: Some(5_000_000_000), ..copy("sub", "/b/c") };
    let third = world.run(&world.scratch(), &input, vec![kind(stamped)]).unwrap();
    for name in ["b", "b/c", "b/c/new"] {
        assert_eq!(
            third.chain.base.view.get(&path(name)).unwrap().unwrap().stat.mtime,
            5_000_000_000,
            "{name}"
        );
    }
}

#[test]
fn copies_from_a_chain_keep_owners_times_and_hard_links() {
    let Some(world) = world() else { return };
    let from = world.chain("d 0750 4:5 d\nf 4755 6:7 d/tool tool\nl d/link -> tool\nf 0600 1:1 passwd x");
    let input = super::super::FileInput::Chain(from.base.clone());
    let got = world.run(&world.scratch(), &input, copies(&[("/d", "/again"), ("passwd", "/")])).unwrap();
    let want = ["again 755 0:0 d", "again/link 777 0:0 l -> tool", "again/tool 4755 6:7", "passwd 600 1:1"];
    assert_eq!(short(&got.tree), want);
    let tool = got.chain.base.view.get(&path("again/tool")).unwrap().unwrap();
    assert_eq!(tool.stat.mtime, 1_000_000_000);
}

#[test]
fn hard_links_survive_inside_one_copied_directory() {
    let Some(world) = world() else { return };
    let dir = world.files(&[("t/a", "same", 0o644), ("t/sub/x", "x", 0o644)]);
    std::fs::hard_link(dir.join("t/a"), dir.join("t/sub/b")).unwrap();
    std::fs::hard_link(dir.join("t/a"), dir.join("outside")).unwrap();
    let input = super::super::FileInput::Context(world.walk(&dir));
    let actions = copies(&[("t", "/t"), ("outside", "/t/")]);
    let got = world.run(&world.scratch(), &input, actions).unwrap();
    let ino = |name: &str| got.chain.base.view.get(&path(name)).unwrap().unwrap().stat.ino;
    assert_eq!(ino("t/a"), ino("t/sub/b"));
    assert_ne!(ino("t/a"), ino("t/outside"));
}

#[test]
fn many_files_and_a_large_one_go_through_threads() {
    let Some(world) = world() else { return };
    let dir = world.files(&[]);
    for i in 0..5000 {
        let sub = dir.join(format!("d{}", i % 7));
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(sub.join(format!("f{i}")), format!("file {i}")).unwrap();
    }
    std::fs::write(dir.join("large"), vec![7; 9 << 20]).unwrap();
    let input = super::super::FileInput::Context(world.walk(&dir));
    let got = world.run(&world.scratch(), &input, copies(&[(".", "/all")])).unwrap();
    assert_eq!(got.tree.lines().count(), 1 + 7 + 5000 + 1);
}

#[test]
fn times_of_what_is_copied_count_however_new_it_is() {
    let Some(world) = world() else { return };
    let dir = world.files(&[("src/a", "1", 0o644)]);
    let root = || {
        let input = super::super::FileInput::Context(world.walk(&dir));
        world.run(&world.scratch(), &input, copies(&[("src", "/src")])).unwrap().output.layer.root
    };
    let (at_once, later) = (root(), {
        std::thread::sleep(std::time::Duration::from_millis(50));
        root()
    });
    assert_eq!(at_once, later);
}
