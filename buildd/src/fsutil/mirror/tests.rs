//! Mirrors compared with what is sent.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cache::context::{MemoryStatCache, WalkRequest, remember, walk};
use cache::tree::Trees;
use futures_util::StreamExt as _;
use proptest::prelude::*;
use proto::fsutil::Stat;
use rustix::fs::{AtFlags, CWD, FileType, Mode};
use solver::pattern::PatternMatcher;
use tokio::sync::mpsc;

use super::*;
use crate::fsutil::write::times;
use crate::fsutil::{Files as _, MetadataOnly, Selection, Tree, packets, receive, replies, send};

/// What happened in a transfer.
struct Transfer {
    result: Result<Mirrored, TransferError>,
    /// Bytes of packets.
    bytes: u64,
    /// Paths that were asked for.
    files: Vec<String>,
}

/// Sends `from` into `to`; with `cut`, only so many packets of it.
fn transfer(from: &Path, selection: &Selection, to: &Path, cut: usize) -> Transfer {
    let mirror = Mirror::new(to, Differ::Metadata, Arc::new(())).unwrap();
    run(from, selection, mirror, cut, |done| done.map(Mirror::into_done))
}

fn run<S: Sink>(
    from: &Path,
    selection: &Selection,
    sink: S,
    cut: usize,
    into: impl FnOnce(Result<S, TransferError>) -> Result<Mirrored, TransferError>,
) -> Transfer {
    let files = Arc::new(Mutex::new(Vec::new()));
    let tree = Opened { tree: Tree::new(from, selection).unwrap(), files: files.clone() };
    let bytes = AtomicU64::new(0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let result = runtime.block_on(async {
        let (to_receiver, from_sender) = mpsc::channel(4);
        let (to_sender, from_receiver) = mpsc::unbounded_channel();
        tokio::spawn(send(Arc::new(tree), replies(from_receiver).map(Ok), to_receiver));
        let incoming = packets(from_sender).map(Ok).take(cut);
        let progress = |n| {
            bytes.fetch_add(n, Ordering::Relaxed);
        };
        receive(sink, incoming, to_sender, &progress).await
    });
    drop(runtime);
    let files = std::mem::take(&mut *files.lock().unwrap());
    Transfer { result: into(result), bytes: bytes.into_inner(), files }
}

/// Notes what is opened.
struct Opened {
    tree: Tree,
    files: Arc<Mutex<Vec<String>>>,
}

impl crate::fsutil::Files for Opened {
    fn walk(&self, emit: &mut dyn FnMut(Stat) -> Result<(), TransferError>) -> Result<(), TransferError> {
        self.tree.walk(emit)
    }

    fn open(&self, path: &str) -> std::io::Result<Box<dyn std::io::Read + Send>> {
        self.files.lock().unwrap().push(path.to_owned());
        self.tree.open(path)
    }
}

/// Everything that is selected, with the content of files.
fn listing(root: &Path, selection: &Selection) -> Vec<(Stat, Vec<u8>)> {
    let mut found = Vec::new();
    let walked = Tree::new(root, selection).unwrap().walk(&mut |stat| {
        let path = root.join(&stat.path);
        let content = if path.symlink_metadata().unwrap().is_file() {
            std::fs::read(path).unwrap()
        } else {
            Vec::new()
        };
        found.push((stat, content));
        Ok(())
    });
    walked.unwrap();
    found
}

fn all() -> Selection {
    Selection::default()
}

/// Sets the modification time, in nanoseconds since 1970.
fn touch(path: &Path, time: i64) {
    let stat = Stat { mod_time: time, ..Stat::default() };
    rustix::fs::utimensat(CWD, path, &times(&stat), AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn write(root: &Path, path: &str, content: &str, time: i64) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    touch(&path, time);
}

fn scene() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    std::fs::create_dir(&to).unwrap();
    (dir, from, to)
}

#[test]
fn only_what_differs_is_sent() {
    let (_dir, from, to) = scene();
    for i in 0..600 {
        write(&from, &format!("d{}/f{i}", i % 7), &format!("content {i}"), 1_000 + i);
    }
    let first = transfer(&from, &all(), &to, usize::MAX);
    assert_eq!((first.files.len(), first.result.unwrap().written.len()), (600, 600));
    assert_eq!(listing(&to, &all()), listing(&from, &all()));
    let second = transfer(&from, &all(), &to, usize::MAX);
    assert!(second.files.is_empty(), "{:?}", second.files);
    assert!(second.bytes < first.bytes, "{} of {}", second.bytes, first.bytes);
    write(&from, "d3/f3", "changed", 5_000_000_001);
    std::fs::remove_file(from.join("d5/f5")).unwrap();
    let third = transfer(&from, &all(), &to, usize::MAX);
    assert_eq!(third.files, ["d3/f3"]);
    assert_eq!(listing(&to, &all()), listing(&from, &all()));
    // The sender is believed: what has neither another size nor another time is not sent.
    write(&from, "d3/f3", "CHANGED", 5_000_000_001);
    assert!(transfer(&from, &all(), &to, usize::MAX).files.is_empty());
    let mirror = Mirror::new(&to, Differ::None, Arc::new(())).unwrap();
    let forced = run(&from, &all(), mirror, usize::MAX, |done| done.map(Mirror::into_done));
    assert_eq!(forced.files.len(), 599);
    assert_eq!(listing(&to, &all()), listing(&from, &all()));
}

#[test]
fn kinds_change() {
    let (_dir, from, to) = scene();
    let rest = |name: &str| from.join(name);
    let steps: [&dyn Fn(); 8] = [
        &|| write(&from, "x/deep/file", "a", 1),
        &|| {
            std::fs::remove_dir_all(rest("x")).unwrap();
            write(&from, "x", "file now", 2);
        },
        &|| {
            std::fs::remove_file(rest("x")).unwrap();
            symlink("somewhere", rest("x")).unwrap();
        },
        &|| {
            std::fs::remove_file(rest("x")).unwrap();
            write(&from, "x/y", "directory again", 3);
            write(&from, "z", "one", 3);
            std::fs::hard_link(rest("z"), rest("x/z")).unwrap();
        },
        // Two files where there was one with two names.
        &|| {
            std::fs::remove_file(rest("x/z")).unwrap();
            write(&from, "x/z", "one", 3);
        },
        &|| {
            std::fs::remove_file(rest("x/z")).unwrap();
            std::fs::hard_link(rest("z"), rest("x/z")).unwrap();
            std::fs::hard_link(rest("z"), rest("zz")).unwrap();
        },
        // The first of the names goes.
        &|| std::fs::remove_file(rest("x/z")).unwrap(),
        &|| {
            std::fs::remove_dir_all(rest("x")).unwrap();
            let fifo = rustix::fs::mknodat(CWD, rest("x"), FileType::Fifo, Mode::from_raw_mode(0o640), 0);
            fifo.unwrap();
        },
    ];
    for (step, change) in steps.into_iter().enumerate() {
        change();
        transfer(&from, &all(), &to, usize::MAX).result.unwrap();
        assert_eq!(listing(&to, &all()), listing(&from, &all()), "step {step}");
        let again = transfer(&from, &all(), &to, usize::MAX);
        assert!(again.files.is_empty(), "step {step}: {:?}", again.files);
        assert_eq!(listing(&to, &all()), listing(&from, &all()), "step {step}, again");
    }
}

#[test]
fn closed_directories() {
    let (_dir, from, to) = scene();
    write(&from, "d/f", "1", 1);
    let close = |mode| std::fs::set_permissions(from.join("d"), PermissionsExt::from_mode(mode)).unwrap();
    for (mode, content) in [(0o555, "1"), (0o555, "23"), (0o500, "23"), (0o2755, "4")] {
        close(0o755);
        write(&from, "d/f", content, 7);
        touch(&from.join("d"), 9);
        close(mode);
        transfer(&from, &all(), &to, usize::MAX).result.unwrap();
        assert_eq!(listing(&to, &all()), listing(&from, &all()), "{mode:o}");
    }
    close(0o755);
    std::fs::set_permissions(to.join("d"), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn digests_made_while_writing_are_those_of_the_files() {
    let (_dir, from, to) = scene();
    for i in 0..300 {
        write(&from, &format!("d{}/f{i}", i % 3), &"x".repeat(i * 31), 1_000);
    }
    let cache = MemoryStatCache::default();
    let trees = Arc::new(Trees::new(Arc::new(cache::tree::MemoryNodes::default())));
    let ignored = PatternMatcher::new::<&str>(&[]).unwrap();
    let hashed = |dir: &Path, cache: &MemoryStatCache| {
        let request = WalkRequest {
            dir: Arc::new(rustix::fs::open(dir, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap()),
            ignored: &ignored,
            include_patterns: &[],
            follow_paths: &[],
            stat_cache: cache,
            trees: trees.clone(),
            threads: 2,
            thread_init: None,
            cancel: &std::sync::atomic::AtomicBool::new(false),
        };
        let context = walk(&request).unwrap();
        (context.root, context.stats.hashed)
    };
    for change in ["", "changed"] {
        if !change.is_empty() {
            write(&from, "d1/f100", change, 2_000);
        }
        let Mirrored { written, live, .. } = transfer(&from, &all(), &to, usize::MAX).result.unwrap();
        remember(&cache, &written, &live).unwrap();
        let (root, read) = hashed(&to, &cache);
        assert_eq!(root, hashed(&from, &MemoryStatCache::default()).0);
        assert_eq!(read, 0, "{change}: none has to be read");
    }
}

#[test]
fn a_list_instead_of_files() {
    let (dir, from, to) = scene();
    for path in ["a/b/one", "a/b/two", "a/c/one", "top", ".fsutil-metadata"] {
        write(&from, path, path, 5);
    }
    for _ in 0..2 {
        let mirror = Mirror::new(&to, Differ::Metadata, Arc::new(())).unwrap();
        let sink = MetadataOnly::new(mirror, &["**/two".to_owned()], dir.path()).unwrap();
        let done =
            run(&from, &all(), sink, usize::MAX, |done| done.map(|sink| sink.into_mirror().into_done()));
        done.result.unwrap();
        let there: Vec<_> = listing(&to, &all()).into_iter().map(|(stat, _)| stat.path).collect();
        assert_eq!(there, [".fsutil-metadata", "a", "a/b", "a/b/two"]);
        let list = std::fs::read(to.join(".fsutil-metadata")).unwrap();
        let (mut rest, mut paths) = (&list[..], Vec::new());
        while let Some((len, message)) = rest.split_first_chunk::<4>() {
            let (message, next) = message.split_at(u32::from_le_bytes(*len) as usize);
            paths.push(<Stat as prost::Message>::decode(message).unwrap().path);
            rest = next;
        }
        assert_eq!(paths, ["a", "a/b", "a/b/one", "a/b/two", "a/c", "a/c/one", "top"]);
    }
}

/// Each small file arrives with much of a large one, which another thread writes.
#[test]
fn small_files_between_large_ones() {
    let (_dir, from, to) = scene();
    let large = "x".repeat(600_000);
    for i in 0..40 {
        write(&from, &format!("{i:02}.a"), "small", 1);
        write(&from, &format!("{i:02}.b"), &large, 1);
    }
    assert_eq!(transfer(&from, &all(), &to, usize::MAX).result.unwrap().written.len(), 80);
    assert_eq!(listing(&to, &all()), listing(&from, &all()));
}

#[test]
fn what_the_writers_meet_is_told() {
    let (_dir, from, to) = scene();
    for i in 0..1000 {
        write(&from, &format!("f{i}"), "x", 1);
    }
    let mirror = Mirror::new(&to, Differ::Metadata, Arc::new(())).unwrap();
    // Somebody writes there, who must not.
    write(&to, "f7", "in the way", 1);
    let done = run(&from, &all(), mirror, usize::MAX, |done| done.map(Mirror::into_done));
    let error = done.result.map(drop).unwrap_err();
    assert!(matches!(&error, TransferError::Io { path, .. } if path.ends_with("f7")), "{error}");
    // It is no harm to the next transfer.
    transfer(&from, &all(), &to, usize::MAX).result.unwrap();
    assert_eq!(listing(&to, &all()), listing(&from, &all()));
}

/// An entry of a generated tree. The content follows from time and length, as those who only look at these believe.
#[derive(Debug, Clone)]
enum Entry {
    Dir {
        mode: u32,
        time: i64,
    },
    File {
        mode: u32,
        time: i64,
        len: usize,
    },
    /// A hard link to the file of that path, if there is one.
    Link {
        to: String,
    },
    Symlink {
        to: String,
        time: i64,
    },
    Fifo {
        time: i64,
    },
}

/// By path; what lies below something that is no directory is left out.
type World = BTreeMap<String, Entry>;

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(vec!["a", "b", "a.b", "c-"]), 1..4)
        .prop_map(|parts| parts.join("/"))
}

fn entry() -> impl Strategy<Value = Entry> {
    let time = || (0..3i64).prop_map(|n| n * 1_500_000_001);
    let mode = || proptest::sample::select(vec![0o644u32, 0o755, 0o4711]);
    prop_oneof![
        4 => (proptest::sample::select(vec![0o755u32, 0o700, 0o555]), time())
            .prop_map(|(mode, time)| Entry::Dir { mode, time }),
        4 => (mode(), time(), proptest::sample::select(vec![0usize, 1, 7, 200_000]))
            .prop_map(|(mode, time, len)| Entry::File { mode, time, len }),
        2 => path().prop_map(|to| Entry::Link { to }),
        1 => (path(), time()).prop_map(|(to, time)| Entry::Symlink { to, time }),
        1 => time().prop_map(|time| Entry::Fifo { time }),
    ]
}

fn world() -> impl Strategy<Value = World> {
    proptest::collection::btree_map(path(), entry(), 0..14)
}

fn build(root: &Path, world: &World) {
    std::fs::create_dir(root).unwrap();
    let mut dirs = Vec::new();
    for (path, entry) in world {
        let full = root.join(path);
        if !full.parent().unwrap().symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            continue;
        }
        match entry {
            Entry::Dir { mode, time } => {
                std::fs::create_dir(&full).unwrap();
                dirs.push((full, *mode, *time));
            }
            Entry::File { mode, time, len } => {
                std::fs::write(&full, vec![b'0' + (time % 10) as u8; *len]).unwrap();
                std::fs::set_permissions(&full, PermissionsExt::from_mode(*mode)).unwrap();
                touch(&full, *time);
            }
            Entry::Link { to } => {
                let target = root.join(to);
                if target.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                    std::fs::hard_link(target, &full).unwrap();
                }
            }
            Entry::Symlink { to, time } => {
                symlink(to, &full).unwrap();
                touch(&full, *time);
            }
            Entry::Fifo { time } => {
                rustix::fs::mknodat(CWD, &full, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
                touch(&full, *time);
            }
        }
    }
    for (dir, mode, time) in dirs.into_iter().rev() {
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).unwrap();
        touch(&dir, time);
    }
}

fn selection() -> impl Strategy<Value = Selection> {
    let pattern = || proptest::sample::select(vec!["a", "b/a", "**/b", "a.*", "!a/b", "c-/**"]);
    let list = || proptest::collection::vec(pattern().prop_map(str::to_owned), 0..3);
    let plain = |list: Vec<String>| list.into_iter().filter(|text| !text.starts_with('!')).collect();
    prop_oneof![
        2 => Just(Selection::default()),
        1 => (list(), list()).prop_map(move |(include, exclude)| Selection {
            include: plain(include), exclude, follow: Vec::new(),
        }),
        1 => list().prop_map(move |follow| Selection { follow: plain(follow), ..Selection::default() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_mirror_is_what_a_fresh_transfer_gives(
        steps in proptest::collection::vec((world(), selection(), proptest::option::of(0..20usize)), 1..5),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        std::fs::create_dir(&to).unwrap();
        for (step, (world, selection, cut)) in steps.iter().enumerate() {
            let from = dir.path().join(format!("from{step}"));
            build(&from, world);
            // One that breaks off first.
            if let Some(cut) = cut {
                let _ = transfer(&from, selection, &to, *cut);
            }
            transfer(&from, selection, &to, usize::MAX).result.unwrap();
            let there = listing(&to, &all());
            prop_assert_eq!(&there, &listing(&from, selection), "step {}", step);
            let fresh = dir.path().join(format!("fresh{step}"));
            std::fs::create_dir(&fresh).unwrap();
            transfer(&from, selection, &fresh, usize::MAX).result.unwrap();
            prop_assert_eq!(&there, &listing(&fresh, &all()), "step {}", step);
        }
    }
}
