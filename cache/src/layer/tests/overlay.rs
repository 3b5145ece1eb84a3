//! Commits of real upper directories, compared with what the overlay showed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::fixture::{Chain, Overlay, can_mount_overlay, names, path};
use crate::layer::window::CLOCK_LAG_NS;
use crate::layer::{
    Change, CommitRequest, CommittedLayer, OverlayMarks, Recorded, RunWindow, commit, copy_out,
};
use crate::tree::{FileDigest, Kind, TreePath, Trees};
use crate::view::{MergedView, ViewError};

/// Type, attributes and content of everything below a directory, as text.
fn snapshot(root: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    for entry in walkdir_sorted(root) {
        let meta = entry.symlink_metadata().unwrap();
        let name = entry.strip_prefix(root).unwrap().display().to_string();
        let content = if meta.is_file() {
            format!("{:?}", FileDigest::of(&std::fs::read(&entry).unwrap()))
        } else if meta.is_symlink() {
            std::fs::read_link(&entry).unwrap().display().to_string()
        } else {
            String::new()
        };
        let time = if meta.is_dir() { 0 } else { meta.mtime() * 1_000_000_000 + meta.mtime_nsec() };
        seen.insert(name, format!("{:o} {}:{} {time} {content}", meta.mode(), meta.uid(), meta.gid()));
    }
    seen
}

fn walkdir_sorted(root: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                pending.push(path.clone());
            }
            all.push(path);
        }
    }
    all
}

/// The same of a chain, through a view.
fn view_snapshot(chain: &Chain) -> BTreeMap<String, String> {
    let view = MergedView::open(&chain.dirs()).unwrap();
    let mut seen = BTreeMap::new();
    view.walk::<ViewError>(&TreePath::root(), &mut |found| {
        use crate::view::FileType as T;
        use std::io::Read;
        let (kind, content) = match found.stat.file_type {
            T::File => {
                let mut data = Vec::new();
                view.open_file(found)?.read_to_end(&mut data).unwrap();
                (0o100_000, format!("{:?}", FileDigest::of(&data)))
            }
            T::Dir => (0o040_000, String::new()),
            T::Symlink => (0o120_000, String::from_utf8(view.read_link(found)?).unwrap()),
            T::CharDevice => (0o020_000, String::new()),
            T::BlockDevice => (0o060_000, String::new()),
            T::Fifo => (0o010_000, String::new()),
            T::Socket => (0o140_000, String::new()),
        };
        let s = &found.stat;
        let time = if s.file_type == T::Dir { 0 } else { s.mtime };
        seen.insert(
            String::from_utf8(found.path.as_bytes().to_vec()).unwrap(),
            format!("{:o} {}:{} {time} {content}", kind | s.mode, s.uid, s.gid),
        );
        Ok(true)
    })
    .unwrap();
    seen
}

/// Runs each script on the chain so far, commits, and checks the chain against the mount; gives each layer's names.
fn run(scripts: &[&str]) -> Option<(Chain, Vec<Vec<String>>)> {
    if !can_mount_overlay() {
        return None;
    }
    let mut chain = Chain::new();
    chain.build(|_| {});
    let mut all = Vec::new();
    for (i, script) in scripts.iter().enumerate() {
        // What the last step wrote must lie before both windows of this one.
        std::thread::sleep(2 * Duration::from_nanos(CLOCK_LAG_NS as u64));
        let at = chain.dir.path().join(format!("m{i}"));
        let plain = as_plain_directory(&chain, &at, script);
        let start = SystemTime::now();
        let overlay = Overlay::mount(&at, &chain.dirs()).unwrap();
        let status = Command::new("sh").arg("-ec").arg(script).current_dir(&overlay.merged).status().unwrap();
        assert!(status.success(), "{script}");
        let shown = snapshot(&overlay.merged);
        let upper = overlay.upper.clone();
        drop(overlay);
        all.push(names(chain.commit(upper, start, &[])));
        let committed = &chain.layers.last().unwrap().1;
        assert_eq!(names(&plain.entries), names(&committed.entries), "{script}");
        assert_eq!(plain.root, committed.root, "{script}");
        assert_eq!(view_snapshot(&chain), shown, "{script}");
        check_tree(&chain);
        check_normal_form(&chain);
    }
    Some((chain, all))
}

/// The layer that a script makes where overlays cannot be mounted.
fn as_plain_directory(chain: &Chain, at: &Path, script: &str) -> CommittedLayer {
    let (base, [tree, upper]) = (chain.base(), ["tree", "changes"].map(|name| at.join(name)));
    for dir in [at, &tree, &upper] {
        std::fs::create_dir(dir).unwrap();
    }
    copy_out(&base.view, b"", &tree).unwrap();
    let recorded = Recorded::of(&tree).unwrap();
    let start = SystemTime::now();
    let status = Command::new("sh").arg("-ec").arg(script).current_dir(&tree).status().unwrap();
    assert!(status.success(), "{script}");
    let window = RunWindow::new(start, SystemTime::now());
    recorded.move_changes(&tree, &upper).unwrap();
    let marks = OverlayMarks::Trusted;
    commit(&CommitRequest { upper: &upper, base: &base, window, stubs: &[], marks }).unwrap()
}

/// The incremental tree equals one that is built in a single step from all that the chain shows, and what its
/// nodes say is what the directories hold.
fn check_tree(chain: &Chain) {
    let view = MergedView::open(&chain.dirs()).unwrap();
    let replayed =
        chain.trees.apply_all(Trees::empty(), chain.layers.iter().map(|(_, l)| &l.entries)).unwrap();
    assert_eq!(replayed, chain.root());
    let mut from_tree = Vec::new();
    chain
        .trees
        .walk(&chain.root(), &TreePath::root(), &mut |path, node| {
            from_tree.push((path.clone(), node.mode, node.uid, node.gid, node.is_dir()));
            true
        })
        .unwrap();
    let mut from_view = Vec::new();
    view.walk::<ViewError>(&TreePath::root(), &mut |f| {
        from_view.push((
            f.path.clone(),
            f.stat.mode,
            f.stat.uid,
            f.stat.gid,
            f.stat.file_type == crate::view::FileType::Dir,
        ));
        Ok(true)
    })
    .unwrap();
    assert_eq!(from_tree, from_view);
}

/// Directory and entries say the same, and nothing of overlayfs is left.
fn check_normal_form(chain: &Chain) {
    let (dir, layer) = chain.layers.last().unwrap();
    let on_disk: Vec<_> = {
        let mut all: Vec<_> = walkdir_sorted(dir)
            .into_iter()
            .map(|p| path(p.strip_prefix(dir).unwrap().to_str().unwrap()))
            .collect();
        all.sort();
        all
    };
    let listed: Vec<_> = layer.entries.iter().map(|e| e.path.clone()).collect();
    assert_eq!(on_disk, listed);
    let dump = Command::new("getfattr").args(["-hRd", "-m", "-", "."]).current_dir(dir).output();
    if let Ok(dump) = dump {
        assert!(!String::from_utf8_lossy(&dump.stdout).contains("overlay"), "{dump:?}");
    }
    for entry in layer.entries.iter() {
        let meta = dir.join(entry.path.as_path()).symlink_metadata().unwrap();
        match &entry.change {
            Change::Whiteout => assert_eq!((meta.mode() & 0o170_000, meta.rdev()), (0o020_000, 0)),
            Change::Put { mtime, .. } => {
                assert_eq!(meta.mtime() * 1_000_000_000 + meta.mtime_nsec(), *mtime, "{}", entry.path);
            }
        }
    }
}

/// Without directories, as the conformance cases list layers.
fn files(layer: &[String]) -> Vec<&str> {
    layer.iter().map(String::as_str).filter(|name| !name.ends_with('/')).collect()
}

#[test]
fn whiteouts() {
    let Some((_, layers)) = run(&[
        "mkdir -p lw/dir/sub lw/empty; cd lw; echo lw > file; echo lw > dir/a; echo lw > dir/sub/b; ln -s file link
         echo lw > h1; ln h1 h2; mkfifo pipe",
        "rm lw/file lw/link lw/h1 lw/pipe; rmdir lw/empty",
        "rm -r lw/dir",
        "echo never > lw/temp; mkdir -p lw/tempdir/x; rm -r lw/temp lw/tempdir",
    ]) else {
        return;
    };
    assert_eq!(files(&layers[1]), ["-lw/empty", "-lw/file", "-lw/h1", "-lw/link", "-lw/pipe"]);
    assert_eq!(layers[2], ["lw/", "-lw/dir"]);
    assert_eq!(layers[3], [""; 0], "what came and went leaves nothing");
}

#[test]
fn hard_links() {
    let Some((chain, layers)) = run(&[
        "mkdir l; cd l; echo one > a; ln a b; mkdir sub; ln a sub/c",
        "cd l; echo two > x; ln x y; rm x",
        "cd l; ln a late",
        "cd l; rm b",
        "cd l; echo new > p; ln p q; ln -s q s; ln s s-hard; chmod 600 q",
    ]) else {
        return;
    };
    let group = |layer: usize, name: &str| match &chain.layers[layer + 1]
        .1
        .entries
        .get(&path(name))
        .unwrap()
        .change
    {
        Change::Put { node, .. } => node.link_group.clone(),
        Change::Whiteout => panic!("{name} is a whiteout"),
    };
    assert_eq!(files(&layers[0]), ["l/a", "l/b", "l/sub/c"]);
    assert_eq!(group(0, "l/sub/c"), Some(path("l/a")));
    assert_eq!(files(&layers[1]), ["l/y"]);
    assert_eq!(group(1, "l/y"), None);
    assert_eq!(files(&layers[2]), ["l/late"], "the copied-up other name is equal to the lower one");
    assert_eq!(group(2, "l/late"), None);
    assert_eq!(files(&layers[3]), ["-l/b"]);
    assert_eq!(files(&layers[4]), ["l/p", "l/q", "l/s", "l/s-hard"]);
    assert_eq!(group(4, "l/s-hard"), Some(path("l/s")));
}

#[test]
fn renames() {
    let Some((_, layers)) = run(&[
        "mkdir -p r/old/sub r/x r/y; cd r; echo a > old/a; echo b > old/sub/b; chmod 640 old/a; chown -R 4:5 old
         echo f > f; echo x > x/x; echo y > y/y; ln -s a old/l",
        "mv r/old r/new",
        "mv r/f r/new/sub/g",
        "cd r; mv x t; mv y x; mv t y",
        "mv r/new r/old; echo more > r/old/more",
    ]) else {
        return;
    };
    assert_eq!(files(&layers[1]), ["r/new/a", "r/new/l", "r/new/sub/b", "-r/old"]);
    assert_eq!(files(&layers[2]), ["-r/f", "r/new/sub/g"]);
    assert_eq!(files(&layers[3]), ["-r/x/x", "r/x/y", "r/y/x", "-r/y/y"]);
    assert_eq!(
        files(&layers[4]),
        ["-r/new", "r/old/a", "r/old/l", "r/old/more", "r/old/sub/b", "r/old/sub/g"]
    );
}

#[test]
fn type_changes() {
    let Some((_, layers)) = run(&[
        "mkdir -p t/d1/sub t/d2/sub t/d3; cd t; echo 1 > d1/f; echo 2 > d2/f; echo g > d2/sub/g; echo 1 > f1; echo 2 > f2
         ln -s d3 l1; ln -s f1 l2; mkfifo p1",
        "cd t; rm -r d1; echo now a file > d1",
        "cd t; rm -r d2; ln -s d3 d2",
        "cd t; rm f1; mkdir f1; echo in > f1/in",
        "cd t; rm l1; mkdir l1; echo in > l1/in",
        "cd t; rm l2 p1; echo plain > l2; ln -s f2 p1",
        "cd t; rm f2; mkfifo f2; rm d1; mkdir d1; echo again > d1/new",
    ]) else {
        return;
    };
    let expected: [&[&str]; 6] =
        [&["t/d1"], &["t/d2"], &["t/f1/in"], &["t/l1/in"], &["t/l2", "t/p1"], &["t/d1/new", "t/f2"]];
    for (layer, expected) in layers[1..].iter().zip(expected) {
        assert_eq!(files(layer), expected);
    }
}

#[test]
fn opaque_directories_become_whiteouts() {
    let Some((_, layers)) = run(&[
        "mkdir -p o/keep/deep o/gone; echo 1 > o/a; echo 2 > o/keep/b; echo 3 > o/keep/deep/c; echo 4 > o/gone/d
         touch -d 2001-02-03 o/a",
        "cp -a o/a saved; rm -r o; mkdir -p o/keep/deep; cp -a saved o/a; rm saved; echo new > o/keep/deep/new",
        "rm -r o; mkdir o",
    ]) else {
        return;
    };
    assert_eq!(
        layers[1],
        ["o/", "-o/gone", "o/keep/", "-o/keep/b", "o/keep/deep/", "-o/keep/deep/c", "o/keep/deep/new"],
        "an equal file is left out even below an opaque mark"
    );
    assert_eq!(layers[2], ["o/", "-o/a", "-o/keep"]);
}

#[test]
fn what_equals_the_lower_is_left_out() {
    let Some((chain, layers)) = run(&[
        "mkdir d e; echo x > d/f; echo y > d/g; touch -d 2020-01-01 d/f",
        "chmod 600 d/f; chmod 644 d/f; touch e/tmp; rm e/tmp",
        "echo y > d/g",
        "touch -d 2001-01-01 e",
        "setfattr -n user.k -v v d/f 2>/dev/null || true; chmod 700 d",
    ]) else {
        return;
    };
    assert_eq!(layers[1], [""; 0]);
    assert_eq!(layers[2], ["d/", "d/g"], "another time is a change of the layer");
    assert_eq!(chain.layers[3].1.root, chain.layers[2].1.root, "but not one of the content");
    assert_eq!(layers[3], ["e/"], "a time that was set counts, also on a directory");
    assert_ne!(chain.layers[4].1.root, chain.layers[3].1.root);
    assert_eq!(chain.layers[2].1.root, chain.layers[1].1.root);
}

#[test]
fn stubs_vanish_unless_used() {
    if !can_mount_overlay() {
        return;
    }
    let mut chain = Chain::new();
    chain.build(|b| {
        b.mkdir(&path("etc"), &super::fixture_meta(0o755)).unwrap();
    });
    let overlay = Overlay::mount(&chain.dir.path().join("m"), &chain.dirs()).unwrap();
    let start = SystemTime::now();
    for (dir, file) in
        [("run/secrets", "run/secrets/token"), ("mnt/used", "mnt/used/stub"), ("etc", "etc/hosts")]
    {
        std::fs::create_dir_all(overlay.merged.join(dir)).unwrap();
        std::fs::write(overlay.merged.join(file), "").unwrap();
    }
    std::fs::write(overlay.merged.join("mnt/used/by-command"), "x").unwrap();
    let upper = overlay.upper.clone();
    drop(overlay);
    let stubs = ["run", "run/secrets", "run/secrets/token", "mnt", "mnt/used", "mnt/used/stub", "etc/hosts"]
        .map(path);
    let entries = chain.commit(upper, start, &stubs);
    assert_eq!(names(entries), ["mnt/", "mnt/used/", "mnt/used/by-command"]);
    check_normal_form(&chain);
    let root = chain.layers[1].0.symlink_metadata().unwrap();
    assert_eq!((root.mode() & 0o7777, root.mtime()), (0o755, 0));
}

#[test]
fn a_second_run_gives_equal_content_and_another_layer() {
    let script =
        "mkdir -p app/bin; echo build > app/bin/x; ln app/bin/x app/bin/y; rm -rf old; ln -s x app/l";
    let (Some((a, _)), Some((b, _))) = (
        run(&["mkdir old; touch -d 2001-01-01 old", script]),
        run(&["mkdir old; touch -d 2001-01-01 old", script]),
    ) else {
        return;
    };
    assert_eq!(a.root(), b.root());
    assert_ne!(a.layers[2].1.id, b.layers[2].1.id);
    let Kind::File { size, .. } = a.trees.get(&a.root(), &path("app/bin/y")).unwrap().unwrap().kind else {
        panic!("no file");
    };
    assert_eq!(size, 6);
}

#[test]
fn an_old_time_stays_uncounted_when_a_file_is_copied_up() {
    let scripts = ["mkdir d; echo x > d/f; echo y > d/g", "chmod 600 d/f; ln d/g d/h; chmod 700 d"];
    let (Some((a, _)), Some((b, _))) = (run(&scripts), run(&scripts)) else { return };
    assert_eq!(a.root(), b.root());
    for p in ["d", "d/f", "d/h"] {
        assert_eq!(a.trees.get(&a.root(), &path(p)).unwrap().unwrap().mtime, None, "{p}");
    }
}

#[test]
fn a_very_deep_directory_is_refused_without_damage() {
    if !can_mount_overlay() {
        return;
    }
    let chain = Chain::new();
    let upper = chain.dir.path().join("deep");
    std::fs::create_dir(&upper).unwrap();
    let make = "i=0; while [ $i -lt 600 ]; do mkdir d; cd -P ./d; i=$((i+1)); done";
    assert!(Command::new("sh").arg("-c").arg(make).current_dir(&upper).status().unwrap().success());
    let base = chain.base();
    let request = crate::layer::CommitRequest {
        upper: &upper,
        base: &base,
        window: super::fixture::window(),
        stubs: &[],
        marks: crate::layer::OverlayMarks::Trusted,
    };
    let error = crate::layer::commit(&request).unwrap_err();
    assert!(
        matches!(error, crate::layer::LayerError::Tree(crate::tree::TreeError::PathTooLong(_))),
        "{error:?}"
    );
    Command::new("rm").arg("-r").arg(&upper).status().unwrap();
}
