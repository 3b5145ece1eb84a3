//! Layers that are thin over what the same step gave before: they show, hold and are called what whole ones do.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::world::*;
use crate::fileop::FileInput;
use crate::layer::{Backing, TarOptions, diff_id, write_tar};

/// Files that no change touches: enough to be worth it.
const STEADY: usize = 600;

/// What is at one of the few names that change.
#[derive(Debug, Clone)]
enum Thing {
    Nothing,
    File(u8),
    Dir(Vec<u8>),
    Link(u8),
    /// Two names of one file.
    Twins,
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        Just(Thing::Nothing),
        (0..3u8).prop_map(Thing::File),
        prop::collection::vec(0..3u8, 0..3).prop_map(Thing::Dir),
        (0..2u8).prop_map(Thing::Link),
        Just(Thing::Twins),
    ]
}

fn things() -> impl Strategy<Value = BTreeMap<u8, Thing>> {
    prop::collection::btree_map(0..6u8, thing(), 0..6)
}

/// Makes `dir` hold so many steady files and these things, at the top and in a directory; times are fixed by content.
fn fill(dir: &Path, steady: usize, things: &BTreeMap<u8, Thing>) {
    fs::create_dir_all(dir.join("deep/in")).unwrap();
    for n in 0..steady {
        let name = if n % 2 == 0 { format!("steady{n}") } else { format!("deep/in/steady{n}") };
        write(&dir.join(name), &n.to_string());
    }
    for (n, thing) in things {
        for at in [dir.join(format!("x{n}")), dir.join(format!("deep/x{n}"))] {
            match thing {
                Thing::Nothing => {}
                Thing::File(text) => write(&at, &text.to_string()),
                Thing::Dir(files) => {
                    fs::create_dir(&at).unwrap();
                    for (i, text) in files.iter().enumerate() {
                        write(&at.join(i.to_string()), &text.to_string());
                    }
                }
                Thing::Link(to) => symlink(to.to_string(), &at).unwrap(),
                Thing::Twins => {
                    write(&at, "twins");
                    fs::hard_link(&at, at.with_extension("twin")).unwrap();
                }
            }
        }
    }
    for dir in ["deep/in", "deep", ""].map(|d| dir.join(d)) {
        settle(&dir);
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    settle(path);
}

/// Gives what is at `path` a time long past, as a file of a checked-out project has.
fn settle(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn context(world: &World, things: &BTreeMap<u8, Thing>) -> FileInput {
    let dir = world.files(&[]);
    fill(&dir, STEADY, things);
    FileInput::Context(world.walk(&dir))
}

/// A chain that has these things already, and no steady files.
fn base(world: &World, lower: &BTreeMap<u8, Thing>) -> Chain {
    let dir = world.files(&[]);
    fill(&dir, 0, lower);
    let source = FileInput::Context(world.walk(&dir));
    world.run(&world.scratch(), &source, copies(&[("/", "/")])).unwrap().chain
}

/// Copies `before`, then `after` whole and thin; says whether it was thin.
fn compare(
    before: &BTreeMap<u8, Thing>,
    after: &BTreeMap<u8, Thing>,
    before_lower: &BTreeMap<u8, Thing>,
    lower: &BTreeMap<u8, Thing>,
) -> Option<bool> {
    let mut world = world()?;
    // The parent may have changed since the step gave the backing.
    let (first_base, base) = (base(&world, before_lower), base(&world, lower));
    let (before, after) = (context(&world, before), context(&world, after));
    let all = || {
        let mut all = copy("/", "/");
        all.always_replace_existing_dest_paths = true;
        vec![kind(all)]
    };
    let first = world.run(&first_base, &before, all()).unwrap().output;
    let whole = world.run(&base, &after, all()).unwrap();
    world.backing = Backing::new(first.layer.id, first.dir.clone(), first.layer.entries.clone());
    // It compares what the two directories show together with the tree.
    let thin = world.run(&base, &after, all()).unwrap();
    assert_eq!(thin.output.layer.entries, whole.output.layer.entries);
    assert_eq!((thin.output.layer.id, &thin.tree), (whole.output.layer.id, &whole.tree));
    let is_thin = thin.output.layer.backing.is_some();
    let dirs = match is_thin {
        true => vec![first.dir, thin.output.dir.clone()],
        false => vec![thin.output.dir.clone()],
    };
    let tar = |dirs: &[std::path::PathBuf]| {
        write_tar(&whole.output.layer.entries, dirs, TarOptions::default(), Vec::new()).unwrap()
    };
    assert!(tar(&dirs) == tar(std::slice::from_ref(&whole.output.dir)), "the tar streams differ");
    assert!(diff_id(&whole.output.layer.entries, &dirs, &AtomicBool::new(false)).is_ok());
    Some(is_thin)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn thin_is_whole(before in things(), after in things(), before_lower in things(), lower in things()) {
        compare(&before, &after, &before_lower, &lower);
        // What the step copies is there already, as after a COPY above it.
        compare(&before, &after, &before_lower, &after);
    }
}

fn some<const N: usize>(things: [(u8, Thing); N]) -> BTreeMap<u8, Thing> {
    things.into()
}

#[test]
fn one_changed_file_is_all_that_is_written() {
    let Some(mut world) = world() else { return };
    let base = world.scratch();
    let dir = world.files(&[]);
    fill(&dir, STEADY, &some([(0, Thing::File(0)), (1, Thing::Dir(vec![1]))]));
    let all = || copies(&[("/", "/app")]);
    let first = world.run(&base, &FileInput::Context(world.walk(&dir)), all()).unwrap().output;
    assert_eq!(first.layer.backing, None);

    write(&dir.join("deep/x0"), "changed");
    fs::remove_file(dir.join("steady0")).unwrap();
    settle(&dir);
    world.backing = Backing::new(first.layer.id, first.dir.clone(), first.layer.entries.clone());
    let second = world.run(&base, &FileInput::Context(world.walk(&dir)), all()).unwrap().output;
    assert_eq!(second.layer.backing, Some(first.layer.id));
    let mut written: Vec<String> = walkdir::WalkDir::new(&second.dir)
        .min_depth(1)
        .into_iter()
        .map(|entry| entry.unwrap().path().strip_prefix(&second.dir).unwrap().display().to_string())
        .collect();
    written.sort();
    // `steady0` as a whiteout; `app` was made now.
    assert_eq!(written, ["app", "app/deep", "app/deep/x0", "app/steady0"]);
    assert!(second.layer.disk_bytes < 64 << 10, "{}", second.layer.disk_bytes);
}

#[test]
fn what_the_parent_has_is_not_hidden() {
    let file = some([(0, Thing::File(0))]);
    // The earlier copy had `x0`, the new one has not: the parent's shows again.
    let none = some([]);
    let lower = some([(0, Thing::File(1))]);
    assert_ne!(compare(&file, &none, &none, &lower), Some(true));
    assert_ne!(compare(&file, &none, &none, &none), Some(false));
    // A directory where the earlier copy had a file: the parent's directory shows through.
    let dir = some([(1, Thing::Dir(vec![0]))]);
    let replaced = some([(1, Thing::File(0))]);
    assert_ne!(compare(&replaced, &dir, &none, &none), Some(false));
    assert_ne!(compare(&replaced, &dir, &none, &some([(1, Thing::Dir(vec![1, 1]))])), Some(true));
}

/// What a layer leaves out, because the parent has the same, shows in place of what its backing has there.
#[test]
fn what_is_left_out_shows() {
    let none = some([]);
    for (old, new) in [
        (Thing::File(0), Thing::File(1)),
        (Thing::Link(0), Thing::Link(1)),
        (Thing::Dir(vec![0, 1]), Thing::Dir(vec![0])),
        (Thing::Dir(vec![0, 1]), Thing::Dir(vec![])),
        (Thing::Dir(vec![0]), Thing::File(0)),
    ] {
        let (old, new) = (some([(0, old)]), some([(0, new)]));
        assert_ne!(compare(&old, &new, &none, &new), Some(false), "{new:?}");
    }
}

#[test]
fn little_in_common_is_copied() {
    let Some(mut world) = world() else { return };
    let base = world.scratch();
    let first = world.run(&base, &context(&world, &some([])), copies(&[("/", "/")])).unwrap().output;
    world.backing = Backing::new(first.layer.id, first.dir.clone(), first.layer.entries.clone());
    let dir = world.files(&[]);
    fill(&dir, STEADY, &some([]));
    for n in 0..STEADY / 2 {
        write(&dir.join(format!("steady{}", n * 2)), "other");
    }
    let second = world.run(&base, &FileInput::Context(world.walk(&dir)), copies(&[("/", "/")])).unwrap();
    assert_eq!(second.output.layer.backing, None);
    assert_eq!(walkdir::WalkDir::new(&second.output.dir).min_depth(1).into_iter().count(), STEADY + 2);
}
