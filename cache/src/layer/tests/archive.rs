//! Layers to tar and back, and GNU tar's and Python's view of what we write.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::fixture::{Chain, names, path};
use super::fixture_meta as meta;
use crate::layer::{
    LayerError, Meta, Special, TarOptions, UnpackLimits, Unpacked, diff_id, restore, unpack, write_tar,
};
use crate::tree::{Follow, TreePath};

/// A layer with one of everything, over a base with something to remove.
fn full() -> Chain {
    let mut chain = Chain::new();
    chain.build(|b| {
        b.mkdir(&path("d"), &meta(0o755)).unwrap();
        b.write_file(&path("d/gone"), &meta(0o644), b"").unwrap();
    });
    chain.build(|b| {
        let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
        let xattrs = vec![
            (b"security.capability"[..].into(), capability[..].into()),
            (b"user.note"[..].into(), b"x"[..].into()),
        ];
        b.remove(&path("d/gone")).unwrap();
        b.write_file(&path("d/cap"), &Meta { xattrs, ..meta(0o755) }, b"#!").unwrap();
        b.write_file(&path("d/big"), &meta(0o4711), &vec![7; 700_001]).unwrap();
        b.hardlink(&path("d/cap"), &path("d/other")).unwrap();
        b.symlink(&path("l"), b"d/../d", &meta(0)).unwrap();
        b.special(&path("p"), Special::Fifo, &meta(0o600)).unwrap();
        let long = path(&format!("{}/{}", "n".repeat(120), "m".repeat(130)));
        b.mkdir(&long.parent().unwrap(), &Meta { uid: 3_000_000, gid: 4_000_000_000, ..meta(0o700) })
            .unwrap();
        b.write_file(&long, &Meta { mtime: -5_500_000_000, ..meta(0o644) }, b"long").unwrap();
        b.write_file(&path("z\u{fc}"), &meta(0o644), b"umlaut").unwrap();
        b.symlink(&path("far"), "t/".repeat(90).as_bytes(), &meta(0)).unwrap();
    });
    chain
}

fn tar_of(chain: &Chain, options: TarOptions) -> Vec<u8> {
    let (dir, layer) = chain.layers.last().unwrap();
    write_tar(&layer.entries, &[dir], options, Vec::new()).unwrap()
}

#[test]
fn python_reads_it_as_meant() {
    let tar = tar_of(&full(), TarOptions { max_mtime: Some(1_000_000_000) });
    let script = "import sys,tarfile\nfor m in tarfile.open(fileobj=sys.stdin.buffer, mode='r|'):\n  \
        print(m.name[:9], m.type.decode(), oct(m.mode), m.uid, m.gid, m.size, m.mtime, m.linkname[:9], repr(m.uname), \
        sorted(k for k in m.pax_headers if k != 'path'))";
    let child =
        Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: no python3");
        return;
    };
    child.stdin.take().unwrap().write_all(&tar).unwrap();
    let out = child.wait_with_output().unwrap();
    insta::assert_snapshot!(String::from_utf8(out.stdout).unwrap(), @r"
    d 5 0o755 0 0 0 1000000000  '' []
    d/big 0 0o4711 0 0 700001 1000000000  '' []
    d/cap 0 0o755 0 0 2 1000000000  '' ['SCHILY.xattr.security.capability']
    d/.wh.gon 0 0o0 0 0 0 0  '' []
    d/other 1 0o755 0 0 0 1000000000 d/cap '' ['SCHILY.xattr.security.capability']
    far 2 0o777 0 0 0 1000000000 t/t/t/t/t '' ['linkpath']
    l 2 0o777 0 0 0 1000000000 d/../d '' []
    nnnnnnnnn 5 0o700 3000000 4000000000 0 1000000000  '' ['gid', 'uid']
    nnnnnnnnn 0 0o644 0 0 4 -6.0  '' ['mtime']
    p 6 0o600 0 0 0 1000000000  '' []
    zü 0 0o644 0 0 6 1000000000  '' []
    ");
}

#[test]
fn there_and_back() {
    let chain = full();
    let tar = tar_of(&chain, TarOptions::default());
    let (dir, layer) = chain.layers.last().unwrap();
    let (id, length) = diff_id(&layer.entries, &[dir], &AtomicBool::new(false)).unwrap();
    assert_eq!(id.as_bytes()[..], Sha256::digest(&tar)[..]);
    assert_eq!((length, length % 512), (tar.len() as u64, 0));
    let stopped = diff_id(&layer.entries, &[dir], &AtomicBool::new(true)).unwrap_err();
    assert!(matches!(stopped, LayerError::Stream { .. }));

    let target = chain.dir.path().join("unpacked");
    let base = crate::layer::Base { root: chain.layers[0].1.root, ..chain.base() };
    let unpacked = unpack(&*tar, &target, base, UnpackLimits::default()).unwrap();
    assert_eq!(unpacked.diff_id, id);
    assert!(!unpacked.depends_on_parent);
    assert_eq!(unpacked.layer.id, Unpacked::layer_id(&id, None));
    assert_eq!(names(&unpacked.layer.entries), names(&layer.entries));
    assert_eq!(
        write_tar(&unpacked.layer.entries, &[&target], TarOptions::default(), Vec::new()).unwrap(),
        tar
    );
    for p in ["d", "d/cap", "d/big", "l", "far"] {
        let copy = |root| chain.trees.copy_digest(root, &path(p)).unwrap();
        let same = copy(&unpacked.layer.root) == copy(&layer.root);
        assert_eq!(same, !["d", "d/cap"].contains(&p), "only `user.note` is lost: {p}");
    }
}

#[test]
fn a_file_that_changed_is_an_error() {
    for data in [&b"longer than before"[..], b""] {
        let mut chain = Chain::new();
        chain.build(|b| {
            b.write_file(&path("f"), &meta(0o644), b"as it was").unwrap();
        });
        let (dir, layer) = chain.layers.last().unwrap();
        std::fs::write(dir.join("f"), data).unwrap();
        let error = diff_id(&layer.entries, &[dir], &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.to_string(), "`/f` changed while it was read");
    }
}

#[test]
fn gnu_tar_archives_unpack() {
    let source = tempfile::tempdir().unwrap();
    let script = "mkdir -p a/b; echo x > a/b/f; ln a/b/f a/hard; ln -s b a/link; mkfifo a/pipe; chmod 2755 a/b
        n=$(printf '%0150d' 0); echo long > a/$n; ln -s $n/$n a/far; touch -d '2001-02-03 04:05:06.789' a/b/f";
    let sh = |script: &str| {
        assert!(Command::new("sh").arg("-ec").arg(script).current_dir(&source).status().unwrap().success())
    };
    sh(script);
    for format in ["gnu", "pax", "ustar"] {
        let skip = if format == "ustar" { "--exclude=*000* --exclude=far" } else { "--exclude=nothing" };
        sh(&format!("tar --format={format} {skip} --sort=name -cf {format}.tar a"));
        let tar = std::fs::read(source.path().join(format!("{format}.tar"))).unwrap();
        let mut chain = Chain::new();
        let dir = chain.new_dir();
        let unpacked = unpack(&*tar, &dir, chain.base(), UnpackLimits::default()).unwrap();
        chain.push(dir, unpacked.layer);
        let view = chain.base().view;
        let file = view.resolve(b"a/link/f", Follow::Last).unwrap().unwrap();
        let expected = if format == "pax" { 981_173_106_789_000_000 } else { 981_173_106_000_000_000 };
        assert_eq!((file.stat.nlink, file.stat.mtime), (2, expected), "{format}");
        assert_eq!(view.get(&path("a/b")).unwrap().unwrap().stat.mode, 0o2755);
        if format != "ustar" {
            let long = format!("a/{}", "0".repeat(150));
            assert_eq!(view.read_small(long.as_bytes(), 9).unwrap().unwrap(), b"long\n");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to an archive: no panic, and nothing outside the directory.
    #[test]
    fn damaged_archives_do_no_harm(
        flips in proptest::collection::vec((0usize..20_000, any::<u8>()), 1..8),
        cut in 0usize..20_000,
        fix in any::<bool>(),
    ) {
        let chain = small();
        let mut tar = tar_of(&chain, TarOptions::default());
        for (at, byte) in flips {
            let at = at % tar.len();
            tar[at] = byte;
        }
        if cut % 3 == 0 {
            tar.truncate(cut % tar.len());
        }
        if fix {
            super::hostile::fix_checksums(&mut tar);
        }
        let arena = tempfile::tempdir().unwrap();
        let dir = arena.path().join("in");
        let _ = unpack(&*tar, &dir, chain.base(), UnpackLimits::default());
        let outside: Vec<_> = std::fs::read_dir(arena.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        prop_assert_eq!(outside, ["in"]);
    }
}

/// A layer whose archive has long names, links and content.
fn small() -> Chain {
    let mut chain = Chain::new();
    chain.build(|b| {
        b.mkdir(&path("d"), &meta(0o755)).unwrap();
        b.write_file(&path("d/f"), &meta(0o644), b"data").unwrap();
        b.hardlink(&path("d/f"), &path("d/g")).unwrap();
        b.symlink(&path("d/l"), b"../d", &meta(0)).unwrap();
        let long: TreePath = path(&"n".repeat(130));
        b.write_file(&long, &meta(0o644), &[1; 600]).unwrap();
    });
    chain
}

#[test]
fn layers_are_put_together_again() {
    let chain = full();
    for (dir, layer) in &chain.layers {
        let tar = write_tar(&layer.entries, &[dir], TarOptions::default(), Vec::new()).unwrap();
        let made = chain.dir.path().join(format!("again-{}", layer.id.hex()));
        let again = restore(&layer.entries, &tar[..], &made, &chain.trees).unwrap();
        assert_eq!((&again.layer.id, &again.layer.entries), (&layer.id, &layer.entries));
        assert_eq!(again.diff_id, solver::Digest::of(&tar));
        let same = write_tar(&layer.entries, &[&made], TarOptions::default(), Vec::new()).unwrap();
        assert!(same == tar);
    }
    // A tar of another layer, and one whose bytes are others.
    let (dir, layer) = chain.layers.last().unwrap();
    let tar = write_tar(&layer.entries, &[dir], TarOptions::default(), Vec::new()).unwrap();
    let at = tar.windows(4).position(|bytes| bytes == b"long").unwrap();
    let body = tar.windows(6).position(|bytes| bytes == b"umlaut").unwrap();
    let restored = |entries: &crate::layer::Entries, tar: &[u8], name: &str| {
        restore(entries, tar, &chain.dir.path().join(name), &chain.trees).unwrap_err().to_string()
    };
    assert_eq!(
        restored(&chain.layers[0].1.entries, &tar, "x"),
        "`/d/gone` of the stream is not that of the layer"
    );
    for (i, at) in [at, body].into_iter().enumerate() {
        let mut tar = tar.clone();
        tar[at] ^= 1;
        let error = restored(&layer.entries, &tar, &format!("y{i}"));
        assert!(error.ends_with("of the stream is not that of the layer"), "{error}");
    }
    assert!(restored(&layer.entries, &tar[..1024], "z").contains("d/big"));
    // One whose header says of the first object that others may write it: its files are the same, and what is unpacked of it is not.
    let mut altered = tar.clone();
    altered[106] ^= 2;
    let sum: u32 =
        altered[..148].iter().chain(&altered[156..512]).map(|&b| u32::from(b)).sum::<u32>() + 8 * 32;
    altered[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let error = restored(&layer.entries, &altered, "altered");
    assert_eq!(error, "`/` of the stream is not that of the layer");
}
