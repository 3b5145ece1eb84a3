//! ADD of local archives.

use solver::op::{ChownOpt, CopyAction, UserOpt};

use super::super::FileInput;
use super::world::*;

/// A tar entry: name, type flag, mode, data or link target.
type Entry<'a> = (&'a str, u8, u32, &'a str);

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, flag, mode, data) in entries {
        let link = matches!(flag, b'1' | b'2');
        let body = if link { "" } else { data };
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let mut number = |at: usize, len: usize, value: u64| {
            header[at..at + len - 1].copy_from_slice(format!("{value:0width$o}", width = len - 1).as_bytes());
        };
        number(100, 8, u64::from(*mode));
        number(108, 8, 1);
        number(116, 8, 2);
        number(124, 12, body.len() as u64);
        number(136, 12, 1_600_000_000);
        number(329, 8, 1);
        number(337, 8, 3);
        header[156] = *flag;
        if link {
            header[157..157 + data.len()].copy_from_slice(data.as_bytes());
        }
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(body.as_bytes());
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn add(src: &str, dest: &str) -> CopyAction {
    CopyAction { attempt_unpack: true, ..copy(src, dest) }
}

fn context(world: &World, name: &str, bytes: &[u8]) -> FileInput {
    let dir = world.files(&[]);
    std::fs::write(dir.join(name), bytes).unwrap();
    FileInput::Context(world.walk(&dir))
}

fn run(world: &World, base: &str, bytes: &[u8], action: CopyAction) -> Result<Outcome, String> {
    world.run(&world.chain(base), &context(world, "a.tar", bytes), vec![kind(action)])
}

const IN_TAR: &[Entry<'_>] =
    &[("d", b'5', 0o750, ""), ("d/f", b'0', 0o640, "text"), ("l", b'2', 0o777, "d/f")];

#[test]
fn entries_come_out_as_they_are() {
    let Some(world) = world() else { return };
    let entries: &[Entry<'_>] = &[
        ("suid", b'0', 0o4755, "s"),
        ("dir", b'5', 0o1730, ""),
        ("no/parent/entry", b'0', 0o644, "p"),
        ("hard", b'1', 0o600, "suid"),
        ("/abs/file", b'0', 0o644, "a"),
        ("./dot", b'0', 0o644, "d"),
        ("twice", b'0', 0o644, "first"),
        ("twice", b'0', 0o600, "second"),
        ("null", b'3', 0o666, ""),
        ("pipe", b'6', 0o620, ""),
        ("dangling", b'2', 0o777, "nowhere"),
    ];
    let got = run(&world, "", &tar(entries), add("a.tar", "/x/")).unwrap();
    let want = [
        "x 755 0:0 d",
        "x/abs 755 0:0 d",
        "x/abs/file 644 1:2",
        "x/dangling 777 1:2 l -> nowhere",
        "x/dir 1730 1:2 d",
        "x/dot 644 1:2",
        "x/hard 600 1:2",
        "x/no 755 0:0 d",
        "x/no/parent 755 0:0 d",
        "x/no/parent/entry 644 1:2",
        "x/null 666 1:2 c 1:3",
        "x/pipe 620 1:2 p",
        "x/suid 600 1:2",
        "x/twice 600 1:2",
    ];
    assert_eq!(short(&got.tree), want);
    let twice = got.chain.base.view.get(&path("x/twice")).unwrap().unwrap();
    assert_eq!((twice.stat.size, twice.stat.mtime), (6, 1_600_000_000_000_000_000));
}

#[test]
fn compressed_or_not_and_what_is_no_archive_is_copied() {
    let Some(world) = world() else { return };
    let plain = tar(IN_TAR);
    let mut gzip = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(&plain[..], flate2::Compression::fast());
    std::io::Read::read_to_end(&mut encoder, &mut gzip).unwrap();
    let want = ["x 755 0:0 d", "x/d 750 1:2 d", "x/d/f 640 1:2", "x/l 777 1:2 l -> d/f"];
    for bytes in [&plain, &gzip, &zstd::encode_all(&plain[..], 1).unwrap()] {
        let got = run(&world, "", bytes, add("a.tar", "/x/")).unwrap();
        assert_eq!(short(&got.tree), want);
    }
    for bytes in [&b""[..], b"no archive", &[0; 2048], &gzip[..20]] {
        let got = run(&world, "", bytes, add("a.tar", "/x/")).unwrap();
        assert_eq!(short(&got.tree), ["x 755 0:0 d", "x/a.tar 644 0:0"]);
    }
    let kept = run(&world, "", &plain, copy("a.tar", "/x/")).unwrap();
    assert_eq!(short(&kept.tree), ["x 755 0:0 d", "x/a.tar 644 0:0"]);
}

#[test]
fn chown_is_honoured_chmod_is_not() {
    let Some(world) = world() else { return };
    let owner = Some(ChownOpt { user: Some(UserOpt::Id(15)), group: Some(UserOpt::Id(16)) });
    let action = CopyAction { owner, mode: Some(0o600), ..add("a.tar", "/x/y/") };
    let got = run(&world, "", &tar(IN_TAR), action).unwrap();
    let want = [
        "x 755 15:16 d",
        "x/y 755 15:16 d",
        "x/y/d 750 15:16 d",
        "x/y/d/f 640 15:16",
        "x/y/l 777 15:16 l -> d/f",
    ];
    assert_eq!(short(&got.tree), want);
}

#[test]
fn over_what_exists() {
    let Some(world) = world() else { return };
    let base = "d 0755 0:0 o\nd 0700 3:3 o/d\nf 0644 0:0 o/d/keep k\nf 0400 0:0 o/file old\nl o/flink -> file\n\
                d 0755 0:0 o/full\nf 0644 0:0 o/full/x x\nl o/tolink -> d\nl in -> o";
    let entries: &[Entry<'_>] = &[
        ("d", b'5', 0o755, ""),
        ("d/new", b'0', 0o644, "n"),
        ("file", b'5', 0o711, ""),
        ("flink", b'0', 0o600, "f"),
        ("full", b'0', 0o644, "f"),
        ("tolink", b'5', 0o750, ""),
        ("tolink/in", b'0', 0o644, "i"),
    ];
    let got = run(&world, base, &tar(entries), add("a.tar", "/in")).unwrap();
    let want = [
        "in 777 0:0 l -> o",
        "o 755 0:0 d",
        "o/d 755 1:2 d",
        "o/d/keep 644 0:0",
        "o/d/new 644 1:2",
        "o/file 711 1:2 d",
        "o/flink 600 1:2",
        "o/full 644 1:2",
        "o/tolink 750 1:2 d",
        "o/tolink/in 644 1:2",
    ];
    assert_eq!(short(&got.tree), want);
    let onto = run(&world, base, &tar(entries), add("a.tar", "/o/file"));
    assert_eq!(onto.err().as_deref(), Some("mkdir /o/file: not a directory"));
}

/// T8: nothing leaves the destination, and what cannot be contained is an error.
#[test]
fn nothing_escapes() {
    let Some(world) = world() else { return };
    let base = "f 0644 0:0 victim kept\nd 0755 0:0 x";
    for entries in [
        &[("../../victim", b'0', 0o644, "evil")][..],
        &[("up", b'2', 0o777, "../.."), ("up/victim", b'0', 0o644, "evil")],
        &[("top", b'2', 0o777, "/"), ("top/victim", b'0', 0o644, "evil")],
        &[("top", b'2', 0o777, "/victim"), ("top", b'0', 0o644, "evil")],
        &[("top", b'2', 0o777, "/"), ("top/.", b'5', 0o777, "")],
    ] {
        let got = run(&world, base, &tar(entries), add("a.tar", "/x/")).unwrap();
        assert!(!got.layer.contains(&"victim".to_owned()), "{entries:?}: {:?}", got.layer);
        assert!(short(&got.tree).contains(&"victim 644 0:0".to_owned()), "{entries:?}");
    }
    let link = run(&world, base, &tar(&[("mine", b'1', 0o644, "../../victim")]), add("a.tar", "/x/"));
    assert_eq!(link.err().as_deref(), Some("link /victim /mine: no such file or directory"));
}

#[test]
fn archives_that_end_too_early() {
    let Some(world) = world() else { return };
    let text = "a".repeat(5000);
    let whole = tar(&[("first", b'0', 0o644, &text), ("second", b'0', 0o644, &text)]);
    let mut gzip = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(&whole[..], flate2::Compression::none());
    std::io::Read::read_to_end(&mut encoder, &mut gzip).unwrap();
    for bytes in [&whole[..6000], &gzip[..6000]] {
        let got = run(&world, "", bytes, add("a.tar", "/"));
        assert_eq!(got.err().as_deref(), Some("unexpected EOF"));
    }
}

#[test]
fn bombs_are_bounded() {
    let Some(mut world) = world() else { return };
    let text = "0".repeat(100_000);
    let bomb =
        zstd::encode_all(&tar(&[("a", b'0', 0o644, &text), ("b", b'0', 0o644, &text)])[..], 19).unwrap();
    world.limits.bytes = 150_000;
    let got = run(&world, "", &bomb, add("a.tar", "/"));
    assert_eq!(got.err().as_deref(), Some("/a.tar unpacks to more than 150000 bytes"));
    world.limits = crate::layer::UnpackLimits { bytes: 1 << 30, entries: 1 };
    let got = run(&world, "", &bomb, add("a.tar", "/"));
    assert_eq!(got.err().as_deref(), Some("/a.tar unpacks to more than 1 entries"));
}

#[test]
fn an_archive_that_changed_is_noticed() {
    let Some(world) = world() else { return };
    let dir = world.files(&[]);
    std::fs::write(dir.join("a.tar"), tar(IN_TAR)).unwrap();
    let input = FileInput::Context(world.walk(&dir));
    std::fs::write(dir.join("a.tar"), tar(&IN_TAR[..1])).unwrap();
    let inputs = [FileInput::Chain(world.scratch().base), input];
    let got = world.execute(&op(vec![kind(add("a.tar", "/x/"))]), &inputs).unwrap_err();
    assert!(got.is_context_changed(), "{got}");
}
