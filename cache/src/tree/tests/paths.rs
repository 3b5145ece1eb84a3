//! Paths.

use crate::tree::TreePath;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

#[test]
fn only_plain_paths_parse() {
    for fine in ["", "a", "a/b", "a b/.c/..d", "\u{fc}/x"] {
        assert_eq!(path(fine).as_bytes(), fine.as_bytes());
    }
    for odd in ["/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0b"] {
        assert!(TreePath::parse(odd.as_bytes()).is_err(), "{odd}");
    }
}

#[test]
fn cleaning_stays_inside() {
    for (given, want) in [
        ("/", ""),
        ("../../etc/passwd", "etc/passwd"),
        ("/a/./b//c/", "a/b/c"),
        ("a/../../b", "b"),
        ("...", "..."),
    ] {
        assert_eq!(TreePath::clean(given.as_bytes()).unwrap(), path(want), "{given}");
    }
    assert!(TreePath::clean(b"a\0").is_err());
}

#[test]
fn walk_order_keeps_directories_together() {
    let mut all = ["a-b", "a/z", "a", "a/b/c", "a/b", "b", "a!"].map(path);
    all.sort();
    assert_eq!(all, ["a", "a/b", "a/b/c", "a/z", "a!", "a-b", "b"].map(path));
}

#[test]
fn parts() {
    let p = path("a/b/c");
    assert_eq!(p.parent(), Some(path("a/b")));
    assert_eq!(path("a").parent(), Some(TreePath::root()));
    assert_eq!(TreePath::root().parent(), None);
    assert_eq!(p.name(), b"c");
    assert!(
        p.starts_with(&path("a/b"))
            && !p.starts_with(&path("a/b/c/d"))
            && !path("ab").starts_with(&path("a"))
    );
    assert_eq!(p.strip_prefix(&path("a")), Some(path("b/c")));
    assert_eq!(path("ab").strip_prefix(&path("a")), None);
    assert!(p.join(b"x/y").is_err() && p.join(b"..").is_err() && p.join(b"").is_err());
    assert!(path(&vec!["d"; 513].join("/")).is_too_long() && !path(&vec!["d"; 512].join("/")).is_too_long());
}
