//! Views of directories made by hand.

use std::path::PathBuf;

use rustix::fs::{CWD, FileType as RawType, Mode, mknodat};

use super::{FileType, MergedView, ViewError};
use crate::tree::{Follow, TreePath};

/// Layers, bottom first: `d/` makes a directory, `-f` a whiteout, `l>t` a link, `f=x` a file.
fn layers(specs: &[&[&str]]) -> Option<(tempfile::TempDir, MergedView)> {
    let dir = tempfile::tempdir().unwrap();
    let mut dirs: Vec<PathBuf> = Vec::new();
    for (i, spec) in specs.iter().enumerate() {
        let root = dir.path().join(i.to_string());
        std::fs::create_dir(&root).unwrap();
        for item in *spec {
            if let Some(name) = item.strip_suffix('/') {
                std::fs::create_dir(root.join(name)).unwrap();
            } else if let Some(name) = item.strip_prefix('-') {
                if mknodat(CWD, root.join(name), RawType::CharacterDevice, Mode::empty(), 0).is_err() {
                    eprintln!("skipped: whiteouts cannot be made here");
                    return None;
                }
            } else if let Some((name, target)) = item.split_once('>') {
                std::os::unix::fs::symlink(target, root.join(name)).unwrap();
            } else if let Some((name, data)) = item.split_once('=') {
                std::fs::write(root.join(name), data).unwrap();
            }
        }
        dirs.push(root);
    }
    let view = MergedView::open(&dirs).unwrap();
    Some((dir, view))
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn list(view: &MergedView, dir: &str) -> Vec<(String, usize)> {
    let name = |item: super::DirItem| (String::from_utf8(item.name.to_vec()).unwrap(), item.layer);
    view.list(&path(dir)).unwrap().into_iter().map(name).collect()
}

#[test]
fn upper_layers_win() {
    let Some((_dir, view)) = layers(&[
        &["d/", "d/a=0", "d/b=0", "d/sub/", "d/sub/x=0", "gone/", "gone/x=0", "t/", "t/x=0"],
        &["d/", "d/a=1", "-d/b", "-gone", "t=1"],
        &["d/", "d/c=2", "gone/", "gone/y=2", "t/", "t/y=2"],
    ]) else {
        return;
    };
    assert_eq!(list(&view, ""), [("d".into(), 2), ("gone".into(), 2), ("t".into(), 2)]);
    assert_eq!(list(&view, "d"), [("a".into(), 1), ("c".into(), 2), ("sub".into(), 0)]);
    assert_eq!(list(&view, "gone"), [("y".into(), 2)], "a whiteout cuts off what is below");
    assert_eq!(list(&view, "t"), [("y".into(), 2)], "so does a file");
    assert_eq!(view.get(&path("d/b")).unwrap(), None);
    assert_eq!(view.get(&path("t/x")).unwrap(), None);
    assert_eq!(view.get(&path("d/a/x")).unwrap(), None);
    assert_eq!(view.read_small(b"d/sub/x", 1).unwrap().unwrap(), b"0");
    let mut seen = Vec::new();
    view.walk::<ViewError>(&TreePath::root(), &mut |found| {
        seen.push(found.path.to_string());
        Ok(found.path != path("gone"))
    })
    .unwrap();
    assert_eq!(seen, ["/d", "/d/a", "/d/c", "/d/sub", "/d/sub/x", "/gone", "/t", "/t/y"]);
}

#[test]
fn links_lead_through_all_layers_and_never_out() {
    let Some((dir, view)) = layers(&[
        &["etc/", "usr/", "usr/passwd=root", "out>../../.."],
        &["etc/", "etc/passwd>/usr/passwd", "l>etc"],
    ]) else {
        return;
    };
    std::fs::write(dir.path().join("secret"), "host").unwrap();
    assert_eq!(view.read_small(b"/l/passwd", 100).unwrap().unwrap(), b"root");
    assert_eq!(view.resolve(b"l", Follow::No).unwrap().unwrap().stat.file_type, FileType::Symlink);
    assert_eq!(view.read_small(b"out/secret", 100).unwrap(), None);
    assert_eq!(view.read_small(b"../secret", 100).unwrap(), None);
    assert_eq!(view.resolve(b"out", Follow::Last).unwrap().unwrap().path, TreePath::root());
    assert_eq!(view.read_link(&view.get(&path("l")).unwrap().unwrap()).unwrap(), b"etc");
}

#[test]
fn what_is_no_small_file() {
    let Some((dir, view)) = layers(&[&["f=0123456789", "d/", "loop>loop"]]) else { return };
    mknodat(CWD, dir.path().join("0/pipe"), RawType::Fifo, Mode::RUSR, 0).unwrap();
    let error = |path: &str| view.read_small(path.as_bytes(), 9).unwrap_err().to_string();
    assert_eq!(error("f"), "`/f` is larger than 9 bytes");
    assert_eq!(error("pipe"), "`/pipe` is not a regular file");
    assert_eq!(error("d"), "`/d` is not a regular file");
    assert_eq!(error("f/x"), "`/f` is not a directory");
    assert_eq!(error("loop"), "too many levels of symbolic links in `loop`");
    assert_eq!(view.read_small(b"none/x", 9).unwrap(), None);
    assert!(matches!(view.list(&path("f")), Err(ViewError::NotADirectory(_))));
    assert!(matches!(view.list(&path("none")), Err(ViewError::NotFound(_))));
}

#[test]
fn an_empty_chain_is_an_empty_root() {
    let view = MergedView::empty();
    assert_eq!(view.list(&TreePath::root()).unwrap(), []);
    assert_eq!(view.get(&path("a")).unwrap(), None);
    assert!(matches!(MergedView::open(&[PathBuf::from("/nonexistent/x")]), Err(ViewError::Layer { .. })));
}
