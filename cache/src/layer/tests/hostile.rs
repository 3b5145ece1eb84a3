//! Archives that mean harm (class T8): contained or refused.

use std::os::unix::fs::MetadataExt;

use super::fixture::{Chain, names, path};
use super::fixture_meta as meta;
use crate::layer::{LayerError, UnpackLimits, Unpacked, unpack};

/// A raw header with a right checksum, and its content.
pub(super) fn entry(name: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    let mut all = block.to_vec();
    all.extend_from_slice(data);
    all.resize(all.len().next_multiple_of(512), 0);
    fix_checksums(&mut all[..512]);
    all
}

/// Makes each block that looks like a header one with a right checksum.
pub(super) fn fix_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512).filter(|b| b[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..).find(|n| *n == rest + n.to_string().len()).unwrap();
        data.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
    }
    entry("pax", b'x', "", &data)
}

/// Unpacks into `arena/in`, beside a canary.
struct Arena {
    chain: Chain,
    dir: tempfile::TempDir,
}

impl Arena {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("canary"), "untouched").unwrap();
        Self { chain: Chain::new(), dir }
    }

    fn unpack(&self, parts: &[Vec<u8>]) -> Result<Unpacked, LayerError> {
        let mut tar = parts.concat();
        tar.resize(tar.len() + 1024, 0);
        let into = self.dir.path().join("in");
        let _ = std::fs::remove_dir_all(&into);
        let result = unpack(&*tar, &into, self.chain.base(), UnpackLimits::default());
        assert_eq!(std::fs::read_to_string(self.dir.path().join("canary")).unwrap(), "untouched");
        assert_eq!(self.dir.path().join("canary").metadata().unwrap().mode() & 0o7777, 0o644);
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 2);
        result
    }

    fn names(&self, parts: &[Vec<u8>]) -> Vec<String> {
        names(&self.unpack(parts).unwrap().layer.entries)
    }

    fn error(&self, parts: &[Vec<u8>]) -> String {
        let error = self.unpack(parts).unwrap_err();
        error.to_string()
    }
}

#[test]
fn names_stay_inside() {
    let arena = Arena::new();
    assert_eq!(arena.names(&[entry("../canary", b'0', "", b"x")]), ["canary"]);
    assert_eq!(arena.names(&[entry("/../../canary", b'0', "", b"x")]), ["canary"]);
    assert_eq!(arena.names(&[entry("a/../../canary", b'0', "", b"x")]), ["canary"]);
    assert_eq!(arena.names(&[entry("..", b'5', "", b""), entry("./", b'5', "", b"")]), [""; 0]);
    let host = arena.dir.path().join("canary").display().to_string();
    assert_eq!(
        arena.names(&[pax(&[("path", &host)]), entry("x", b'0', "", b"x")]).last().unwrap(),
        &host[1..]
    );
}

#[test]
fn nothing_is_written_through_links() {
    let arena = Arena::new();
    let outside = arena.dir.path().display().to_string();
    let through =
        |target: &str| arena.names(&[entry("l", b'2', target, b""), entry("l/canary", b'0', "", b"x")]);
    assert_eq!(through(".."), ["canary", "l"]);
    assert_eq!(through("../.."), ["canary", "l"]);
    assert_eq!(through(&outside).last().unwrap(), &format!("{outside}/canary")[1..]);
    // The link itself is replaced, not what it leads to.
    assert_eq!(arena.names(&[entry("l", b'2', "../canary", b""), entry("l", b'0', "", b"x")]), ["l"]);
    assert_eq!(arena.names(&[entry("l", b'2', "..", b""), entry("l/.", b'5', "", b"")]), ["l/"]);
    assert_eq!(
        arena.names(&[entry("l", b'2', "..", b""), entry("l/.wh.canary", b'0', "", b"")]),
        ["-canary", "l"]
    );
    assert_eq!(
        arena.error(&[entry("l", b'2', "l", b""), entry("l/x", b'0', "", b"")]),
        "too many levels of symbolic links in `l/x`"
    );
    assert_eq!(
        arena.error(&[entry("f", b'0', "", b""), entry("f/x", b'0', "", b"")]),
        "`/f` is not a directory"
    );
}

#[test]
fn hard_links_stay_inside() {
    let arena = Arena::new();
    assert_eq!(arena.error(&[entry("h", b'1', "../canary", b"")]), "`/canary` does not exist");
    assert_eq!(
        arena.error(&[entry("l", b'2', "..", b""), entry("h", b'1', "l/canary", b"")]),
        "`/canary` does not exist"
    );
    assert_eq!(arena.error(&[entry("d", b'5', "", b""), entry("h", b'1', "d", b"")]), "`/d` is a directory");
    // A link to a link is another name of the link.
    let both = arena.unpack(&[entry("l", b'2', "../canary", b""), entry("h", b'1', "l", b"")]).unwrap();
    assert_eq!(std::fs::read_link(arena.dir.path().join("in/h")).unwrap().to_str(), Some("../canary"));
    assert!(!both.depends_on_parent);
}

#[test]
fn ambiguous_archives_are_refused() {
    let arena = Arena::new();
    let file = entry("f", b'0', "", b"data");
    let global = |records: &[(&str, &str)]| {
        let mut header = pax(records);
        header[156] = b'g';
        fix_checksums(&mut header);
        header
    };
    let mut sum = file.clone();
    sum[0] ^= 1;
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("size", vec![pax(&[("size", "5")]), file.clone()]),
        (
            "size of nothing",
            vec![pax(&[("size", "512")]), entry("f", b'0', "", b""), entry("inner", b'0', "", b"")],
        ),
        ("two names", vec![pax(&[("path", "a"), ("path", "b")]), file.clone()]),
        ("GNU and PAX name", vec![entry("L", b'L', "", b"a\0"), pax(&[("path", "b")]), file.clone()]),
        ("two PAX headers", vec![pax(&[("path", "a")]), pax(&[("uid", "1")]), file.clone()]),
        ("NUL", vec![pax(&[("path", "a\0b")]), file.clone()]),
        ("sparse", vec![pax(&[("GNU.sparse.major", "1")]), file.clone()]),
        ("GNU sparse", vec![entry("f", b'S', "", b"")]),
        ("content of a link", vec![entry("l", b'2', "x", b"data")]),
        ("content of a directory", vec![entry("d", b'5', "", b"data")]),
        ("file with slash", vec![entry("f/", b'0', "", b"data")]),
        ("type", vec![entry("f", b'V', "", b"")]),
        ("uid", vec![pax(&[("uid", "4294967296")]), file.clone()]),
        ("uid -1", vec![pax(&[("uid", "4294967295")]), file.clone()]),
        ("global size", vec![global(&[("size", "1")]), file.clone()]),
        ("record", vec![entry("pax", b'x', "", b"9999 path=a\n"), file.clone()]),
        ("checksum", vec![sum]),
        ("after the end", vec![vec![0; 512], file.clone()]),
        ("whiteout of the parent", vec![entry("d/.wh...", b'0', "", b"")]),
        ("long attribute", vec![pax(&[("SCHILY.xattr.user.a", &"x".repeat((64 << 10) + 1))]), file.clone()]),
        ("long extension", vec![entry("pax", b'x', "", &vec![b'x'; 2 << 20]), file.clone()]),
    ];
    let errors: Vec<_> =
        cases.iter().map(|(name, parts)| format!("{name}: {}", arena.error(parts))).collect();
    insta::assert_snapshot!(errors.join("\n"), @r"
    size: invalid archive: a size that header and PAX record give differently at byte 1024
    size of nothing: invalid archive: a size that header and PAX record give differently at byte 1024
    two names: invalid archive: a field given twice at byte 0
    GNU and PAX name: invalid archive: a field given twice at byte 1024
    two PAX headers: invalid archive: two PAX headers for one entry at byte 1024
    NUL: invalid archive: an empty name or one with NUL at byte 0
    sparse: invalid archive: a sparse file at byte 0
    GNU sparse: invalid archive: a sparse file at byte 0
    content of a link: invalid archive: content behind an entry that is no file at byte 0
    content of a directory: invalid archive: content behind an entry that is no file at byte 0
    file with slash: invalid archive: a file whose name ends with a slash at byte 0
    type: invalid archive: an entry of unknown type at byte 0
    uid: invalid archive: an owner out of range at byte 1024
    uid -1: invalid archive: an owner out of range at byte 1024
    global size: invalid archive: a global PAX header that changes entries at byte 0
    record: invalid archive: a broken PAX record at byte 0
    checksum: invalid archive: a header with a wrong checksum at byte 0
    after the end: invalid archive: an entry after an end mark at byte 0
    whiteout of the parent: invalid archive: a whiteout of no name at byte 0
    long attribute: invalid archive: an extended attribute above 64 KiB at byte 0
    long extension: invalid archive: an extended header above 1 MiB at byte 0
    ");
    assert_eq!(arena.names(&[global(&[("comment", "x")]), pax(&[("size", "4")]), file]), ["f"]);
}

#[test]
fn cut_short_and_too_large() {
    let arena = Arena::new();
    let tar = [entry("f", b'0', "", &[1; 2000]), vec![0; 1024]].concat();
    for cut in [1, 511, 513, 1000, 2511] {
        let into = arena.dir.path().join(format!("cut{cut}"));
        let error = unpack(&tar[..cut], &into, arena.chain.base(), UnpackLimits::default()).unwrap_err();
        assert!(matches!(&error, LayerError::Tar(_) | LayerError::Io { .. }), "{cut}: {error:?}");
    }
    let limited = |limits, into: &str| {
        unpack(&*tar, &arena.dir.path().join(into), arena.chain.base(), limits).unwrap_err().to_string()
    };
    let fine = UnpackLimits::default();
    assert_eq!(limited(UnpackLimits { bytes: 3000, ..fine }, "b"), "the layer has more than 3000 bytes");
    assert_eq!(limited(UnpackLimits { entries: 0, ..fine }, "e"), "the layer has more than 0 entries");
}

#[test]
fn attributes_do_not_fill_memory() {
    let names: Vec<_> = (0..15).map(|i| format!("SCHILY.xattr.user.{i:02}")).collect();
    let value = "x".repeat(64 << 10);
    let records: Vec<_> = names.iter().map(|name| (&**name, &*value)).collect();
    let one = [pax(&records), entry("d", b'5', "", b"")].concat();
    let mut reader = crate::layer::TarReader::new(std::io::Read::chain(&*one, &*one));
    assert_eq!(reader.next_entry().unwrap().unwrap().xattrs.len(), 15);
    assert_eq!(reader.next_entry().unwrap().unwrap().xattrs.len(), 15);
    let many = vec![&*one; 140];
    let mut reader = crate::layer::TarReader::new(Pieces(many));
    let error = loop {
        match reader.next_entry() {
            Ok(entry) => assert!(entry.is_some(), "128 MiB were exceeded"),
            Err(e) => break e.to_string(),
        }
    };
    assert!(error.starts_with("invalid archive: more than 128 MiB of extended attributes"), "{error}");
}

/// Pieces one after the other.
struct Pieces<'a>(Vec<&'a [u8]>);

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.pop_if(|piece| piece.is_empty());
        self.0.last_mut().map_or(Ok(0), |piece| piece.read(buf))
    }
}

#[test]
fn overlay_marks_do_not_come_in() {
    let arena = Arena::new();
    let marks =
        pax(&[("SCHILY.xattr.trusted.overlay.opaque", "y"), ("SCHILY.xattr.user.overlay.redirect", "/etc")]);
    let unpacked = arena.unpack(&[marks, entry("d", b'5', "", b""), entry("d/w", b'3', "", b"")]).unwrap();
    assert_eq!(names(&unpacked.layer.entries), ["d/", "-d/w"], "a device 0:0 is a whiteout");
    assert!(
        crate::view::disk::xattrs_of(std::fs::File::open(arena.dir.path().join("in/d")).unwrap())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn book_keeping_of_aufs_is_left_out() {
    let arena = Arena::new();
    let dir = |name| entry(name, b'5', "", b"");
    let file = |name| entry(name, b'0', "", b"x");
    let linked = arena.unpack(&[
        file(".wh..wh.aufs"),
        dir(".wh..wh.orph"),
        file(".wh..wh.orph/left"),
        dir(".wh..wh.plnk"),
        file(".wh..wh.plnk/5.6"),
        entry(".wh..wh.plnk/link", b'2', "/etc/passwd", b""),
        entry("a", b'1', ".wh..wh.plnk/5.6", b""),
        entry("b", b'1', ".wh..wh.plnk/5.6", b""),
        file("c"),
    ]);
    let linked = linked.unwrap();
    assert_eq!(names(&linked.layer.entries), ["a", "b", "c"]);
    assert!(!linked.depends_on_parent);
    assert_eq!(arena.dir.path().join("in/a").metadata().unwrap().nlink(), 2);
    assert!(!arena.dir.path().join("in/.wh..wh.plnk").exists());
}

#[test]
fn names_below_whiteouts() {
    // No file system that a layer can describe has such names; containerd takes them all the same.
    let arena = Arena::new();
    let parts = [entry("d", b'5', "", b""), entry("d/.wh.a/b", b'0', "", b"x")];
    assert_eq!(arena.names(&parts), ["d/", "d/.wh.a/", "d/.wh.a/b"]);
}

#[test]
fn whiteouts_of_archives() {
    let mut arena = Arena::new();
    arena.chain.build(|b| {
        for dir in ["d", "d/sub", "e"] {
            b.mkdir(&path(dir), &meta(0o750)).unwrap();
        }
        for file in ["d/a", "d/sub/b", "e/c"] {
            b.write_file(&path(file), &meta(0o640), b"base").unwrap();
        }
    });
    let dir = |name| entry(name, b'5', "", b"");
    let file = |name| entry(name, b'0', "", b"x");

    let plain = arena.unpack(&[dir("d"), file("d/.wh.a"), file("d/.wh.never"), file(".wh.e")]).unwrap();
    assert_eq!(
        names(&plain.layer.entries),
        ["d/", "-d/a", "-d/never", "-e"],
        "whiteouts stay: the layer may get another parent"
    );
    assert!(!plain.depends_on_parent);

    // Opaque, wherever in the archive the mark stands.
    let opaque = ["d/", "-d/a", "d/new", "-d/sub"];
    assert_eq!(arena.names(&[dir("d"), file("d/.wh..wh..opq"), file("d/new")]), opaque);
    assert_eq!(arena.names(&[dir("d"), file("d/new"), file("d/.wh..wh..opq")]), opaque);
    assert_eq!(arena.names(&[file(".wh.d"), dir("d"), file("d/new")]), opaque);
    assert_eq!(arena.names(&[dir("d"), file("d/new"), file(".wh.d")]), opaque);
    assert_eq!(arena.names(&[file(".wh..wh..opq"), file("f")]), ["-d", "-e", "f"]);
    assert!(arena.unpack(&[dir("d"), file("d/.wh..wh..opq")]).unwrap().depends_on_parent);

    // Without the base it is known all the same that the base matters.
    for parts in [[file(".wh.d"), dir("d")], [dir("d"), file(".wh.d")]] {
        assert!(Arena::new().unpack(&parts).unwrap().depends_on_parent);
    }

    // Parents left out are the base's, hard links may lead into it; both tie the layer to it.
    let tied = arena.unpack(&[file("d/sub/new")]).unwrap();
    assert_eq!(names(&tied.layer.entries), ["d/", "d/sub/", "d/sub/new"]);
    assert!(tied.depends_on_parent);
    assert_eq!(arena.dir.path().join("in/d").metadata().unwrap().mode() & 0o7777, 0o750);
    assert_ne!(tied.layer.id, Unpacked::layer_id(&tied.diff_id, None));
    let linked = arena.unpack(&[entry("h", b'1', "e/c", b"")]).unwrap();
    assert_eq!(names(&linked.layer.entries), ["e/", "e/c", "h"]);
    assert!(linked.depends_on_parent);

    // A file replaces even a full directory, of this layer and of the base.
    assert_eq!(arena.names(&[dir("n"), file("n/x"), file("n"), file("d")]), ["d", "n"]);
}

#[test]
fn a_tied_layer_depends_on_the_content_of_its_parent_only() {
    let roots = [1u64, 2].map(|seconds| {
        let mut arena = Arena::new();
        let now =
            crate::layer::RunWindow::new(std::time::SystemTime::UNIX_EPOCH, std::time::SystemTime::now());
        let dir = arena.chain.new_dir();
        let builder = crate::layer::LayerBuilder::create(&dir, arena.chain.base()).unwrap();
        let at = |mode| crate::layer::Meta { mtime: seconds as i64 * 1_000_000_000, ..meta(mode) };
        builder.mkdir(&path("d"), &at(0o755)).unwrap();
        builder.write_file(&path("d/f"), &at(0o644), b"x").unwrap();
        let layer = builder.finish(now).unwrap();
        arena.chain.push(dir, layer);
        let unpacked = arena.unpack(&[entry("d/new", b'0', "", b""), entry("h", b'1', "d/f", b"")]).unwrap();
        (arena.chain.root(), unpacked.layer.id, unpacked.layer.root)
    });
    assert_eq!(roots[0], roots[1]);
}
