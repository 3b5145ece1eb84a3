//! The copy digest of a selection: which edits it sees.

use solver::Selection;

use super::super::FileInput;
use super::super::selection::input_selection_digest;
use super::world::*;

type Files<'a> = &'a [(&'a str, &'a str, u32)];

const FILES: Files<'static> = &[
    ("a.txt", "a", 0o644),
    ("b.txt", "b", 0o644),
    ("same", "a", 0o644),
    ("tree/x", "x", 0o644),
    ("tree/sub/y.log", "y", 0o644),
    ("link", "-> a.txt", 0),
    ("dangling", "-> no", 0),
];

fn selection(path: &str) -> Selection {
    Selection { path: path.to_owned(), follow_symlink: true, wildcard: true, ..Selection::default() }
}

fn digest(world: &World, files: Files<'_>, selection: &Selection) -> Result<solver::Digest, String> {
    input_selection_digest(&world.context(files), std::slice::from_ref(selection)).map_err(|e| e.to_string())
}

/// `FILES` with one more, or one replaced.
fn with<'a>(change: (&'a str, &'a str, u32)) -> Vec<(&'a str, &'a str, u32)> {
    FILES.iter().copied().filter(|file| file.0 != change.0).chain([change]).collect()
}

#[test]
fn sees_what_changes_the_copy_and_nothing_else() {
    let Some(world) = world() else { return };
    let excluding =
        |path: &str, list: &str| Selection { exclude_patterns: vec![list.into()], ..selection(path) };
    let including = |list: &str| Selection { include_patterns: vec![list.into()], ..selection("/") };
    for (what, change, seen) in [
        (selection("a.txt"), ("a.txt", "A", 0o644), true),
        (selection("a.txt"), ("a.txt", "a", 0o755), true),
        (selection("a.txt"), ("b.txt", "B", 0o644), false),
        (selection("link"), ("a.txt", "A", 0o644), true),
        (selection("link"), ("link", "-> same", 0), false),
        (selection("tree"), ("tree/new", "", 0o644), true),
        (selection("tree"), ("tree/empty/", "", 0o755), true),
        (selection("tree"), ("beside", "", 0o644), false),
        (selection("*.txt"), ("c.txt", "", 0o644), true),
        (selection("*.txt"), ("c.md", "", 0o644), false),
        (selection("tr*"), ("tree/x", "X", 0o644), true),
        (excluding("tree", "**/*.log"), ("tree/sub/y.log", "Y", 0o644), false),
        (excluding("tree", "**/*.log"), ("tree/x", "X", 0o644), true),
        (including("tree/sub/*"), ("tree/sub/y.log", "Y", 0o644), true),
        (including("tree/sub/*"), ("tree/x", "X", 0o644), false),
        (including("tree/sub/*"), ("tree/sub/", "", 0o700), true),
        (including("*.absent"), ("a.txt", "A", 0o644), false),
    ] {
        let (before, after) =
            (digest(&world, FILES, &what).unwrap(), digest(&world, &with(change), &what).unwrap());
        assert_eq!(before != after, seen, "{what:?} with {change:?}");
    }
}

#[test]
fn the_name_counts_its_spelling_does_not() {
    let Some(world) = world() else { return };
    let of = |path: &str| digest(&world, FILES, &selection(path)).unwrap();
    assert_eq!(of("a.txt"), of("./x/../a.txt"));
    assert_ne!(of("a.txt"), of("same"));
    assert_eq!(of("tree"), of("tree/"));
    // Matches that come, go or change their names.
    let renamed: Vec<_> =
        FILES.iter().map(|file| if file.0 == "b.txt" { ("z.txt", file.1, file.2) } else { *file }).collect();
    assert_ne!(of("*.txt"), digest(&world, &renamed, &selection("*.txt")).unwrap());
}

#[test]
fn times_and_a_contexts_owners_do_not_count_a_chains_owners_do() {
    let Some(world) = world() else { return };
    let dir = world.files(FILES);
    let of = |dir: &std::path::Path| {
        input_selection_digest(&FileInput::Context(world.walk(dir)), &[selection(".")]).unwrap()
    };
    let before = of(&dir);
    std::fs::File::open(dir.join("a.txt")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    std::os::unix::fs::chown(dir.join("tree"), Some(12), Some(34)).unwrap();
    assert_eq!(of(&dir), before);

    let chain = |lines: &str| {
        let input = FileInput::Chain(world.chain(lines).base);
        input_selection_digest(&input, &[selection("/d")]).unwrap()
    };
    assert_ne!(chain("d 0755 0:0 d\nf 0644 0:0 d/f x"), chain("d 0755 0:0 d\nf 0644 1:0 d/f x"));
}

#[test]
fn what_is_missing_is_an_error_where_execution_would_give_one() {
    let Some(world) = world() else { return };
    let of = |what: &Selection| digest(&world, FILES, what);
    assert_eq!(of(&selection("missing.txt")), Err("\"/missing.txt\": not found".into()));
    assert_eq!(of(&selection("a.txt/below")), Err("\"/a.txt/below\": not found".into()));
    assert_eq!(of(&selection("dangling")), Err("\"/dangling\": not found".into()));
    assert_eq!(of(&selection(r"st\*r")), Err(r#""/st\\*r": not found"#.into()));
    assert!(of(&selection("*.absent")).is_ok());
    assert!(of(&selection("nowhere/*.txt")).is_ok());
    let required = Selection {
        include_patterns: vec!["tree/absent".into(), "tree/x".into()],
        required_paths: vec!["/tree/absent".into()],
        ..selection("/")
    };
    assert_eq!(of(&required), Err("\"/tree/absent\": not found".into()));
    assert!(of(&Selection { required_paths: vec!["/tree/x".into()], ..required }).is_ok());
}
