//! A mount and what travels of it, with real directories.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use fs_err as fs;
use proptest::prelude::*;
use solver::Digest;

use super::*;
use crate::context::MemoryStatCache;
use crate::layer::{Change, Entries, LayerEntry};
use crate::tree::{Kind, Node, TreePath};

/// Packs that were written, by digest.
type Blobs = BTreeMap<Digest, Vec<u8>>;

fn scanned(dir: &Path) -> Scanned {
    scan(dir, &MemoryStatCache::default(), &AtomicBool::new(false)).unwrap()
}

fn list(scanned: &Scanned) -> MountList {
    MountList {
        top: scanned.top.clone(),
        entries: scanned.entries.clone(),
        contents: Contents::default(),
        packs: Vec::new(),
    }
}

/// Packs what is not in `blobs`; gives the list and how many bytes of files were packed.
fn packed(wanted: MountList, local: &Scanned, blobs: &mut Blobs) -> (Packed, u64) {
    let mut new = 0;
    let mut emit = |pack: NewPack| {
        assert_eq!((Digest::of(&pack.bytes), pack.bytes.len() as u64), (pack.pack.digest, pack.pack.size));
        new += pack.pack.plain;
        blobs.insert(pack.pack.digest, pack.bytes);
        Ok(())
    };
    let packed = pack(wanted, local, &mut emit).unwrap();
    let decoded = MountList::decode(&packed.list.encode().unwrap()).unwrap();
    assert_eq!(decoded, packed.list);
    (packed, new)
}

fn spool(list: &MountList, blobs: &Blobs) -> Spool {
    let (mut file, mut at, mut starts) = (tempfile::tempfile().unwrap(), 0, Vec::new());
    for pack in &list.packs {
        file.write_all(&unpack(&blobs[&pack.digest], pack).unwrap()).unwrap();
        starts.push(Some(at));
        at += pack.plain;
    }
    Spool { file, starts }
}

/// As [`restore`], and never cancelled.
fn fill(list: &MountList, packs: &Spool, dir: &Path, cache: &MemoryStatCache) -> Result<(), MountError> {
    restore(list, packs, dir, cache, &|| false)
}

fn restored(list: &MountList, blobs: &Blobs) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fill(list, &spool(list, blobs), dir.path(), &MemoryStatCache::default()).unwrap();
    let canceled = restore(list, &spool(list, blobs), dir.path(), &MemoryStatCache::default(), &|| true);
    assert!(matches!(canceled, Err(MountError::Canceled)));
    dir
}

/// Bytes that do not compress and have nothing in common.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 32);
    let mut block = *blake3::hash(&seed.to_le_bytes()).as_bytes();
    while out.len() < len {
        block = *blake3::hash(&block).as_bytes();
        out.extend_from_slice(&block);
    }
    out.truncate(len);
    out
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

#[test]
fn all_sorts_of_files_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/small"), "text").unwrap();
    fs::write(at("a/empty"), "").unwrap();
    fs::write(at("a/b/large"), noise(1, 3 << 20)).unwrap();
    fs::hard_link(at("a/small"), at("a/b/again")).unwrap();
    std::os::unix::fs::symlink("../nowhere", at("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    fs::write(at(".wh.name"), "no whiteout").unwrap();
    fs::set_permissions(at("a"), std::fs::Permissions::from_mode(0o1711)).unwrap();
    fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o2770)).unwrap();
    std::os::unix::fs::lchown(at("link"), Some(7), Some(8)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(5, 6);
    File::open(at("a/small")).unwrap().set_modified(old).unwrap();

    let local = scanned(dir.path());
    let mut blobs = Blobs::new();
    let (packed, _) = packed(list(&local), &local, &mut blobs);
    assert_eq!(packed.lost, 0);
    let copy = restored(&packed.list, &blobs);
    let again = scanned(copy.path());
    assert_eq!((&again.top, &again.entries), (&local.top, &local.entries));
    assert_eq!(fs::metadata(copy.path().join("a/small")).unwrap().nlink(), 2);
    assert!(!copy.path().join("socket").exists());
    assert_eq!(packed.list.bytes(), 4 + (3 << 20) + 11);
}

#[test]
fn what_was_restored_need_not_be_read_again() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("f"), "1").unwrap();
    let local = scanned(dir.path());
    let mut blobs = Blobs::new();
    let (packed, _) = packed(list(&local), &local, &mut blobs);
    let cache = MemoryStatCache::default();
    fill(&packed.list, &spool(&packed.list, &blobs), copy.path(), &cache).unwrap();
    // The same times and size, and a change time that says otherwise.
    let told = |dir: &Path| scan(dir, &cache, &AtomicBool::new(false)).unwrap().entries;
    assert_eq!(told(copy.path()), local.entries);
    let file = copy.path().join("f");
    let was = fs::metadata(&file).unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(&file, "2").unwrap();
    File::open(&file).unwrap().set_modified(was).unwrap();
    assert_ne!(told(copy.path()), local.entries);
}

#[test]
fn only_what_changed_is_packed() {
    let dir = tempfile::tempdir().unwrap();
    let large = noise(2, 8 << 20);
    fs::write(dir.path().join("large"), &large).unwrap();
    fs::write(dir.path().join("small"), noise(3, 1000)).unwrap();
    let mut blobs = Blobs::new();
    let first = scanned(dir.path());
    let (before, new) = packed(list(&first), &first, &mut blobs);
    assert_eq!(new, (8 << 20) + 1000);

    // Nothing changed but a name and a time.
    fs::rename(dir.path().join("small"), dir.path().join("other")).unwrap();
    let moved = scanned(dir.path());
    let mut wanted = list(&moved);
    wanted.learn(before.list.clone());
    assert_eq!(packed(wanted, &moved, &mut blobs).1, 0);

    // A few bytes in the middle move all that is behind them.
    let mut changed = large.clone();
    changed.splice(4 << 20..4 << 20, *b"some more bytes");
    fs::write(dir.path().join("large"), &changed).unwrap();
    let now = scanned(dir.path());
    let mut wanted = list(&now);
    wanted.learn(before.list.clone());
    let (after, new) = packed(wanted, &now, &mut blobs);
    assert!(new > 0 && new <= 2 << 20, "{new}");
    let copy = restored(&after.list, &blobs);
    assert_eq!(fs::read(copy.path().join("large")).unwrap(), changed);
    assert!(!copy.path().join("small").exists());
}

#[test]
fn packs_that_are_no_good_or_hardly_used_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..10 {
        fs::write(dir.path().join(n.to_string()), noise(n, 100_000)).unwrap();
    }
    let mut blobs = Blobs::new();
    let all = scanned(dir.path());
    let (before, _) = packed(list(&all), &all, &mut blobs);
    let [pack] = before.list.packs.as_slice() else { panic!("one pack for a megabyte") };

    let mut wanted = list(&all);
    wanted.learn(before.list.clone());
    let mut without = wanted.clone();
    without.forget(&HashSet::from([pack.digest]));
    let (healed, new) = packed(without.clone(), &all, &mut Blobs::new());
    assert_eq!((new, healed.lost), (1_000_000, 0));

    // Of what nobody has any more, the rest goes on.
    fs::remove_file(dir.path().join("7")).unwrap();
    let fewer = scanned(dir.path());
    let (rest, _) = packed(without, &fewer, &mut Blobs::new());
    assert_eq!((rest.lost, rest.list.entries.len()), (1, 9));
    assert!(rest.list.entries.get(&path("7")).is_none());

    // A pack half of which is used stays, one with less goes, unless others have what is in it.
    for n in 3..10 {
        let _ = fs::remove_file(dir.path().join(n.to_string()));
    }
    let few = scanned(dir.path());
    let mut own = list(&few);
    own.learn(before.list.clone());
    assert_eq!(packed(own, &few, &mut Blobs::new()).1, 300_000);
    let mut shared = wanted;
    shared.entries = all.entries.clone();
    assert_eq!(packed(shared, &few, &mut Blobs::new()).1, 0);
}

#[test]
fn many_small_packs_become_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut blobs = Blobs::new();
    let mut known: Option<MountList> = None;
    let mut most = 0;
    for n in 0..20u64 {
        fs::write(dir.path().join(n.to_string()), noise(n, 1000)).unwrap();
        let local = scanned(dir.path());
        let mut wanted = list(&local);
        known.take().into_iter().for_each(|list| wanted.learn(list));
        let (packed, _) = packed(wanted, &local, &mut blobs);
        most = most.max(packed.list.packs.len());
        known = Some(packed.list);
    }
    assert_eq!(most, 8);
    let copy = restored(&known.unwrap(), &blobs);
    assert_eq!(scanned(copy.path()).entries, scanned(dir.path()).entries);
}

#[test]
fn a_file_that_changes_meanwhile_is_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "one").unwrap();
    let local = scanned(dir.path());
    fs::write(dir.path().join("f"), "two").unwrap();
    let packed = pack(list(&local), &local, &mut |_| Ok(()));
    assert!(matches!(packed, Err(MountError::Changed(changed)) if changed == path("f")));
    let stopped = scan(dir.path(), &MemoryStatCache::default(), &AtomicBool::new(true));
    assert!(matches!(stopped, Err(MountError::Canceled)));
}

/// An entry as lists have it.
fn entry(name: &str, kind: Kind, mtime: i64, group: Option<&str>) -> LayerEntry {
    let node = Node { kind, link_group: group.map(path), ..Node::plain_dir() };
    LayerEntry { path: path(name), change: Change::Put { node, mtime } }
}

fn file(name: &str, text: &str, mtime: i64) -> LayerEntry {
    entry(name, file_kind(text), mtime, None)
}

fn file_kind(text: &str) -> Kind {
    Kind::File { size: text.len() as u64, content: crate::tree::FileDigest::of(text.as_bytes()) }
}

fn plain(entries: Vec<LayerEntry>) -> MountList {
    MountList {
        top: (Node::plain_dir(), 0),
        entries: Entries::new(entries),
        contents: Contents::default(),
        packs: Vec::new(),
    }
}

#[test]
fn united_by_path_the_newest_wins() {
    let one = plain(vec![
        entry("d", Kind::Dir, 1, None),
        file("d/a", "old", 1),
        file("d/b", "new", 9),
        file("only", "one", 1),
        file("was-dir", "now a file", 8),
        entry("x", file_kind("x"), 5, Some("x")),
        entry("y", file_kind("x"), 5, Some("x")),
    ]);
    let other = plain(vec![
        entry("d", Kind::Dir, 7, None),
        file("d/a", "new", 2),
        file("d/b", "old", 8),
        file("too", "other", 1),
        entry("was-dir", Kind::Dir, 3, None),
        file("was-dir/below", "gone", 99),
        entry("x", file_kind("z"), 6, Some("x")),
        entry("z", file_kind("z"), 6, Some("x")),
    ]);
    let want = plain(vec![
        entry("d", Kind::Dir, 1, None),
        file("d/a", "new", 2),
        file("d/b", "new", 9),
        file("only", "one", 1),
        file("too", "other", 1),
        file("was-dir", "now a file", 8),
        file("x", "z", 6),
        file("y", "x", 5),
        file("z", "z", 6),
    ]);
    assert_eq!(unite(vec![one.clone(), other.clone()]), Some(want));
    assert_eq!(unite(vec![one.clone()]), Some(one.clone()));
    assert_eq!(unite(Vec::new()), None);
    // Of equally old ones the first counts.
    let (a, b) = (plain(vec![file("f", "a", 1)]), plain(vec![file("f", "b", 1)]));
    assert_eq!(unite(vec![a.clone(), b.clone()]), Some(a.clone()));
    assert_eq!(unite(vec![b.clone(), a]), Some(b));
}

#[test]
fn what_both_know_of_contents_is_known_then() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(one.path().join("same"), noise(1, 400_000)).unwrap();
    fs::write(two.path().join("same too"), noise(1, 400_000)).unwrap();
    fs::write(two.path().join("other"), noise(2, 700_000)).unwrap();
    let mut blobs = Blobs::new();
    let lists: Vec<MountList> = [&one, &two]
        .map(|dir| {
            let local = scanned(dir.path());
            packed(list(&local), &local, &mut blobs).0.list
        })
        .into();
    let united = unite(lists).unwrap();
    let copy = restored(&united, &blobs);
    assert_eq!(fs::read(copy.path().join("same")).unwrap(), noise(1, 400_000));
    assert_eq!(fs::read(copy.path().join("same too")).unwrap(), noise(1, 400_000));
    assert_eq!(fs::read(copy.path().join("other")).unwrap(), noise(2, 700_000));
}

#[test]
fn lists_that_no_mount_has_are_refused() {
    let content = crate::tree::FileDigest::of(b"1");
    let refused = |entries: Vec<LayerEntry>| {
        let bytes = plain(entries).encode().unwrap();
        assert!(matches!(MountList::decode(&bytes), Err(MountError::Damaged(_))));
    };
    assert!(MountList::decode(&plain(vec![file("empty", "", 1)]).encode().unwrap()).is_ok());
    refused(vec![entry("device", Kind::CharDevice { major: 1, minor: 3 }, 1, None)]);
    refused(vec![entry("socket", Kind::Socket, 1, None)]);
    refused(vec![LayerEntry { path: path("gone"), change: Change::Whiteout }]);
    refused(vec![file("no/directory", "", 1)]);
    let link = Kind::Symlink { target: b"/etc".as_slice().into() };
    refused(vec![entry("link", link, 1, None), file("link/passwd", "", 1)]);
    refused(vec![file("bytes", "that are nowhere", 1)]);
    refused(vec![entry("f", file_kind(""), 1, Some("f")), entry("g", Kind::Fifo, 1, Some("f"))]);
    refused(vec![entry("d", Kind::Dir, 1, Some("d")), entry("e", Kind::Dir, 1, Some("d"))]);
    let deep = vec!["d"; 600];
    let deep: Vec<LayerEntry> =
        (1..=deep.len()).map(|n| entry(&deep[..n].join("/"), Kind::Dir, 1, None)).collect();
    refused(deep);
    // A file whose chunks are longer or shorter than it.
    let mut list = plain(vec![entry("f", Kind::File { size: 2, content }, 1, None)]);
    list.packs.push(Pack { digest: Digest::of(b""), size: 9, plain: 9 });
    list.contents.add(Chunk { digest: content, pack: 0, offset: 0, len: 1 });
    assert!(MountList::decode(&list.encode().unwrap()).is_err());
    // A few bytes that would be millions of chunks, packs twice, and packs of nothing.
    let mut list = plain(Vec::new());
    list.packs.push(Pack { digest: Digest::of(b""), size: 9, plain: 9 });
    list.contents.add(Chunk { digest: content, pack: 0, offset: 0, len: 1 });
    list.contents.join(crate::tree::FileDigest::of(b"11"), [content, content]);
    assert!(MountList::decode(&list.encode().unwrap()).is_err());
    for (size, times) in [(9, 2), (0, 1)] {
        let mut list = plain(Vec::new());
        list.packs = vec![Pack { digest: Digest::of(b""), size, plain: 9 }; times];
        assert!(MountList::decode(&list.encode().unwrap()).is_err());
    }
    // A chunk that is not in its pack.
    let mut list = plain(Vec::new());
    list.packs.push(Pack { digest: Digest::of(b""), size: 9, plain: 9 });
    list.contents.add(Chunk { digest: content, pack: 0, offset: 9, len: 1 });
    assert!(MountList::decode(&list.encode().unwrap()).is_err());
}

#[test]
fn packs_are_what_their_lists_say() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "right").unwrap();
    let local = scanned(dir.path());
    let mut blobs = Blobs::new();
    let (packed, _) = packed(list(&local), &local, &mut blobs);
    let pack = &packed.list.packs[0];
    let bytes = &blobs[&pack.digest];
    assert!(unpack(&bytes[1..], pack).is_err());
    assert!(unpack(bytes, &Pack { plain: pack.plain + 1, ..pack.clone() }).is_err());
    for (wrong, why) in [(&b"wrong"[..], "others"), (b"r", "short")] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(wrong).unwrap();
        let to = tempfile::tempdir().unwrap();
        let packs = Spool { file, starts: vec![Some(0)] };
        let error = fill(&packed.list, &packs, to.path(), &MemoryStatCache::default()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let to = tempfile::tempdir().unwrap();
    let none = Spool { file: tempfile::tempfile().unwrap(), starts: vec![None] };
    assert!(fill(&packed.list, &none, to.path(), &MemoryStatCache::default()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_refused_or_a_list(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let packed = zstd::encode_all(bytes.as_slice(), 1).unwrap();
        for bytes in [&bytes, &packed] {
            if let Ok(list) = MountList::decode(bytes) {
                prop_assert_eq!(MountList::decode(&list.encode().unwrap()).unwrap(), list);
            }
        }
    }
}
