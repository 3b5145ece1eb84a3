//! Copies with options that no Dockerfile sets, and with those that it does.

use proto::pb;

use super::{Results, actions, copy, id, name, owner, tree, users};

/// How a copy differs from a plain one.
type Change = fn(&mut pb::FileActionCopy);

fn list(patterns: &[&str]) -> Vec<String> {
    patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
}

/// By source and destination.
const COPIES: &[(&str, &str, Change)] = &[
    ("/d/l", "/c", |_| ()),
    ("/d/l", "/c", |c| c.follow_symlink = true),
    ("/dl/a.txt", "/c", |_| ()),
    ("/dl/a.txt", "/c", |c| c.follow_symlink = true),
    ("/dl", "/c", |_| ()),
    ("/dl", "/c", |c| c.follow_symlink = true),
    ("/dl/", "/c", |_| ()),
    ("/d", "/c", |_| ()),
    ("/d", "/c", |c| c.dir_copy_contents = true),
    ("/d/a.txt", "/c", |c| c.create_dest_path = false),
    ("/d", "/c", |c| (c.dir_copy_contents, c.include_patterns) = (true, list(&["*.txt"]))),
    ("/d", "/c", |c| c.include_patterns = list(&["sub"])),
    ("/d", "/c", |c| c.include_patterns = list(&["**/*.txt"])),
    ("/d", "/c", |c| {
        (c.include_patterns, c.exclude_patterns) = (list(&["sub", "*.txt"]), list(&["**/*.md"]));
    }),
    ("/d", "/c", |c| c.exclude_patterns = list(&["a*"])),
    ("/d", "/c", |c| c.exclude_patterns = list(&["*", "!a.txt", "!sub/c.txt"])),
    ("/", "/c", |c| c.exclude_patterns = list(&["d/sub", "top"])),
    ("/", "/c", |c| c.include_patterns = list(&["d/*.txt"])),
    ("/d", "/c", |c| c.include_patterns = list(&["nothing"])),
    ("/d/a.txt", "/c", |c| c.include_patterns = list(&["*"])),
    ("/dl", "/c", |c| (c.follow_symlink, c.include_patterns) = (true, list(&["*.txt"]))),
    ("/dl", "/c", |c| c.include_patterns = list(&["*.txt"])),
    ("/d/*.txt", "/c/", |c| c.allow_wildcard = true),
    ("/d/s*", "/c/", |c| c.allow_wildcard = true),
    ("/d/l*", "/c/", |c| (c.allow_wildcard, c.follow_symlink) = (true, true)),
    ("/d/l*", "/c/", |c| c.allow_wildcard = true),
    ("/*", "/c/", |c| c.allow_wildcard = true),
    ("/d*/a.txt", "/c/", |c| c.allow_wildcard = true),
    ("/d*", "/c/", |c| (c.allow_wildcard, c.include_patterns) = (true, list(&["**/*.txt"]))),
    ("/d*", "/c/", |c| {
        (c.allow_wildcard, c.follow_symlink, c.include_patterns) = (true, true, list(&["sub"]));
    }),
    ("/d/*", "/c/", |c| (c.allow_wildcard, c.exclude_patterns) = (true, list(&["*.md"]))),
    ("/d/a.txt", "/c", |c| c.allow_wildcard = true),
    ("/z*", "/c/", |c| (c.allow_wildcard, c.allow_empty_wildcard) = (true, true)),
    ("/d/[ab].*", "/c/", |c| c.allow_wildcard = true),
    ("/d/?.md", "/c/", |c| c.allow_wildcard = true),
    ("/d", "/c", |c| (c.allow_wildcard, c.follow_symlink) = (true, true)),
    ("/", "/c", |_| ()),
    ("/", "/c", |c| (c.dir_copy_contents, c.follow_symlink) = (true, true)),
    ("/d", "/c", |c| c.mode = 0o640),
    ("/d", "/c", |c| c.mode = 0),
    ("/d", "/c", |c| (c.mode, c.mode_str) = (0, "u+x,go=".to_owned())),
    ("/d", "/c", |c| c.timestamp = -1),
    ("/d", "/c", |c| c.timestamp = 0),
    ("/d", "/c", |c| c.always_replace_existing_dest_paths = true),
    ("/d/a.txt", "/c", |c| c.attempt_unpack_docker_compatibility = true),
    ("/d", "/c", |c| (c.include_patterns, c.required_paths) = (list(&["*.txt"]), list(&["/d/a.txt"]))),
    ("/d", "/c", |c| c.owner = owner(id(3), id(4))),
    ("/d", "/c", |c| c.owner = owner(id(0), None)),
    ("d/../d/a.txt", "/c", |_| ()),
    ("d/a.txt", "c", |_| ()),
    (".", "/c", |c| c.dir_copy_contents = true),
    ("/d/", "/c", |_| ()),
    ("/d/a.txt", "/<&>\u{2028}", |_| ()),
];

pub(super) fn one_by_one(results: &mut Results) {
    let tree = tree(&mut results.llb);
    for (src, dest, change) in COPIES.iter().copied() {
        let made = actions(&mut results.llb, &[&tree], vec![([-1, 0, 0], copy(src, dest, change))]);
        results.add(&made);
    }
}

pub(super) fn over_others(results: &mut Results) {
    let (tree, users) = (tree(&mut results.llb), users(&mut results.llb));
    let plain = |src: &str, dest: &str| copy(src, dest, |_| ());
    let follow = |src: &str, dest: &str| copy(src, dest, |c| c.follow_symlink = true);
    let owned = |input| copy("/d", "/c", |c| c.owner = owner(name("u", input), name("g", input)));
    let (tree_users, users_tree) = (vec![&tree, &users], vec![&users, &tree]);
    for (inputs, all) in [
        (users_tree.clone(), vec![([0, 1, 0], plain("/d", "/c"))]),
        (vec![&tree], vec![([0, 0, 0], plain("/d", "/c"))]),
        // Selections within others, and with links followed or not.
        (users_tree.clone(), vec![([0, 1, -1], plain("/d/a.txt", "/c")), ([2, 1, 0], plain("/d", "/e"))]),
        (users_tree.clone(), vec![([0, 1, -1], follow("/d/l", "/c")), ([2, 1, 0], plain("/d/l", "/e"))]),
        (
            users_tree.clone(),
            vec![
                ([0, 1, -1], plain("/d", "/c")),
                ([2, 1, -1], copy("/d/*.md", "/e/", |c| c.allow_wildcard = true)),
                ([3, 1, 0], follow("/d/sub", "/g")),
            ],
        ),
        (users_tree.clone(), vec![([0, 1, 0], owned(0))]),
        (tree_users, vec![([-1, 0, 0], owned(1))]),
        (vec![&users], vec![([-1, 0, 0], copy("/etc", "/c", |c| c.owner = owner(name("u", 0), None)))]),
    ] {
        let made = actions(&mut results.llb, &inputs, all);
        results.add(&made);
    }
}
