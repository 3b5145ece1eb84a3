//! The builder as a file system.

use super::fixture::{Chain, names, path};
use super::fixture_meta as meta;
use crate::layer::{LayerError, Meta};
use crate::tree::Follow;

#[test]
fn parents_are_copied_up_and_files_replaced() {
    let mut chain = Chain::new();
    chain.build(|b| {
        b.mkdir(&path("etc"), &meta(0o711)).unwrap();
        b.mkdir(&path("etc/d"), &meta(0o755)).unwrap();
        b.write_file(&path("etc/f"), &meta(0o644), b"old").unwrap();
    });
    let entries = chain.build(|b| {
        b.write_file(&path("etc/f"), &meta(0o644), b"new").unwrap();
        b.write_file(&path("etc/g"), &meta(0o4755), b"one").unwrap();
        b.write_file(&path("etc/g"), &meta(0o4755), b"two").unwrap();
        assert!(matches!(b.write_file(&path("etc/d"), &meta(0o644), b""), Err(LayerError::IsADirectory(_))));
        assert!(matches!(b.mkdir(&path("etc/f"), &meta(0o755)), Err(LayerError::NotADirectory(_))));
        assert!(matches!(b.write_file(&path("no/f"), &meta(0o644), b""), Err(LayerError::NotFound(_))));
    });
    assert_eq!(names(entries), ["etc/", "etc/f", "etc/g"]);
    let etc = chain.trees.get(&chain.root(), &path("etc")).unwrap().unwrap();
    assert_eq!(etc.mode, 0o711);
    let view = chain.base().view;
    assert_eq!(view.read_small(b"/etc/g", 10).unwrap().unwrap(), b"two");
    assert_eq!(view.get(&path("etc/g")).unwrap().unwrap().stat.mode, 0o4755);
}

#[test]
fn removal_and_remaking() {
    let mut chain = Chain::new();
    chain.build(|b| {
        for dir in ["d", "d/sub", "e"] {
            b.mkdir(&path(dir), &meta(0o755)).unwrap();
        }
        for file in ["d/a", "d/sub/b", "e/c", "f"] {
            b.write_file(&path(file), &meta(0o644), file.as_bytes()).unwrap();
        }
    });
    let entries = chain.build(|b| {
        assert!(b.remove(&path("d")).unwrap());
        assert!(!b.remove(&path("d")).unwrap());
        assert_eq!(b.get(&path("d/a")).unwrap(), None);
        b.mkdir(&path("d"), &meta(0o755)).unwrap();
        assert_eq!(b.list(&path("d")).unwrap(), []);
        b.mkdir(&path("d/sub"), &meta(0o755)).unwrap();
        b.write_file(&path("d/sub/new"), &meta(0o644), b"").unwrap();
        assert_eq!(b.get(&path("d/sub/b")).unwrap(), None);
        b.remove(&path("e/c")).unwrap();
        b.write_file(&path("temp"), &meta(0o644), b"").unwrap();
        b.remove(&path("temp")).unwrap();
        b.remove(&path("f")).unwrap();
        b.symlink(&path("f"), b"d", &meta(0)).unwrap();
        assert_eq!(b.resolve(b"/f/../f/sub/new", Follow::Last).unwrap().path, path("d/sub/new"));
        assert_eq!(b.resolve_new(b"f/x/y", Follow::Last).unwrap().path, path("d/x/y"));
    });
    assert_eq!(names(entries), ["d/", "-d/a", "d/sub/", "-d/sub/b", "d/sub/new", "e/", "-e/c", "f"]);
}

#[test]
fn links_and_attributes() {
    let mut chain = Chain::new();
    chain.build(|b| {
        b.write_file(&path("a"), &meta(0o644), b"data").unwrap();
    });
    let entries = chain.build(|b| {
        b.hardlink(&path("a"), &path("b")).unwrap();
        b.hardlink(&path("b"), &path("c")).unwrap();
        b.set_meta(&path("c"), &meta(0o600)).unwrap();
    });
    assert_eq!(names(entries), ["a", "b", "c"]);
    let nodes: Vec<_> =
        ["a", "b", "c"].iter().map(|p| chain.trees.get(&chain.root(), &path(p)).unwrap().unwrap()).collect();
    assert!(nodes.iter().all(|n| n.mode == 0o600 && n.link_group == Some(path("a"))), "{nodes:?}");
    let inodes: Vec<_> =
        ["a", "b", "c"].iter().map(|p| chain.base().view.get(&path(p)).unwrap().unwrap().stat.ino).collect();
    assert!(inodes.iter().all(|ino| *ino == inodes[0]));
}

#[test]
fn owners_are_as_asked_for_whatever_was_there() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root gives files away");
        return;
    }
    let mut chain = Chain::new();
    // A setgid directory gives its group to what is made in it.
    std::os::unix::fs::chown(chain.dir.path(), None, Some(1234)).unwrap();
    std::fs::set_permissions(chain.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o2755)).unwrap();
    let theirs = Meta { uid: 7, gid: 8, ..meta(0o644) };
    chain.build(|b| {
        b.write_file(&path("a"), &theirs, b"").unwrap();
        b.hardlink(&path("a"), &path("b")).unwrap();
        b.set_meta(&path("b"), &meta(0o644)).unwrap();
        b.mkdir(&path("d"), &meta(0o755)).unwrap();
        b.write_file(&path("d/f"), &meta(0o644), b"").unwrap();
    });
    let view = chain.base().view;
    for name in ["a", "b", "d", "d/f"] {
        let stat = view.get(&path(name)).unwrap().unwrap().stat;
        assert_eq!((stat.uid, stat.gid, stat.mode & 0o2000), (0, 0, 0), "{name}");
    }
}

#[test]
fn threads_may_add_files() {
    let mut chain = Chain::new();
    let entries = chain.build(|b| {
        b.mkdir(&path("d"), &meta(0o755)).unwrap();
        std::thread::scope(|scope| {
            for t in 0..4 {
                scope.spawn(move || {
                    for i in 0..50 {
                        b.write_file(&path(&format!("d/{t}-{i}")), &meta(0o644), &[t; 10]).unwrap();
                    }
                });
            }
        });
    });
    assert_eq!(entries.len(), 201);
}

#[test]
fn copying_the_same_again_gives_an_empty_layer() {
    let mut chain = Chain::new();
    let fill = |b: &crate::layer::LayerBuilder| {
        b.mkdir(&path("d"), &meta(0o755)).unwrap();
        b.write_file(&path("d/f"), &meta(0o644), b"x").unwrap();
        b.symlink(&path("d/l"), b"f", &meta(0)).unwrap();
    };
    chain.build(fill);
    assert!(chain.build(fill).is_empty());
}

#[test]
fn copies_of_all_sizes_are_hashed_as_they_are() {
    use std::io::{Seek, Write};
    let mut chain = Chain::new();
    for size in [0usize, 1, 70_000, (17 << 20) + 5] {
        let data: Vec<u8> = (0..size).map(|i| (i / 7) as u8).collect();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&data).unwrap();
        source.rewind().unwrap();
        let mut digest = None;
        chain.build(|b| {
            digest = Some(b.copy_file(&path(&format!("f{size}")), &meta(0o644), &source).unwrap())
        });
        assert_eq!(digest, Some(crate::tree::FileDigest::of(&data)));
        let view = chain.base().view;
        assert!(view.read_small(format!("f{size}").as_bytes(), 1 << 30).unwrap().unwrap() == data, "{size}");
    }
}
