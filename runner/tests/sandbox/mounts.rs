//! Mounts of each kind, their targets and stubs: classes T4 and T5.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use nix::mount::{MsFlags, mount as mount_on, umount};
use nix::sched::{CloneFlags, unshare};
use runner::overlay::Overlay;
use runner::{Mount, MountSource, RootFs, SandboxSpec};

use crate::support::{Bench, Ran, is_root, skip};

fn mount(target: &str, source: MountSource) -> Mount {
    Mount { target: target.into(), source, read_only: false }
}

fn directory(path: &Path, subpath: &str) -> MountSource {
    MountSource::Directory { path: path.to_owned(), subpath: subpath.into() }
}

/// Runs a script over the upper directory `name` with mounts.
fn run_with(bench: &Bench, name: &str, mounts: Vec<Mount>, script: &str) -> Ran {
    let spec = bench.spec_over(RootFs::Overlay(bench.overlay(name)), script);
    bench.run_spec(&SandboxSpec { mounts, ..spec })
}

/// What every step leaves over a base that lacks these.
const MARKS: [&str; 3] = ["dev/", "proc/", "sys/"];

/// Everything below a directory, with kinds and sizes.
fn listing(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).unwrap().map(Result::unwrap) {
            let name = entry.path().strip_prefix(dir).unwrap().to_string_lossy().into_owned();
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
                found.push(format!("{name}/"));
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_cache_directory_keeps_what_is_written() {
    let Some(bench) = Bench::new() else { return };
    let cache = bench.path("cache");
    fs::create_dir(&cache).unwrap();
    let mounts = || vec![mount("/var/cache/x", directory(&cache, ""))];
    run_with(&bench, "a", mounts(), "echo one > /var/cache/x/f").text();
    assert_eq!(run_with(&bench, "b", mounts(), "cat /var/cache/x/f").text(), "one\n");
    assert_eq!(listing(&bench.path("a")), MARKS);
    let mut read_only = mounts();
    read_only[0].read_only = true;
    assert_ne!(run_with(&bench, "c", read_only, "echo two > /var/cache/x/f").code(), 0);
}

#[test]
fn layers_read_only_writable_and_selected() {
    let Some(bench) = Bench::new() else { return };
    for (layer, file) in [("l1", "sub/old"), ("l2", "sub/new")] {
        fs::create_dir_all(bench.path(layer).join("sub")).unwrap();
        fs::write(bench.path(layer).join(file), layer).unwrap();
    }
    let lower = vec![bench.path("l1"), bench.path("l2")];
    let layers = |upper, subpath: &str| MountSource::Layers {
        overlay: Overlay { lower: lower.clone(), upper },
        subpath: subpath.into(),
    };
    let mut shown = mount("/src", layers(None, ""));
    shown.read_only = true;
    assert_eq!(
        run_with(&bench, "a", vec![shown.clone()], "cat /src/sub/old /src/sub/new; touch /src/x || echo no")
            .text(),
        "l1l2touch: /src/x: Read-only file system\nno\n"
    );
    let selected = mount("/one", layers(None, "sub/new"));
    assert_eq!(run_with(&bench, "b", vec![selected], "cat /one").text(), "l2");
    let writable = mount("/w", layers(Some(bench.upper("wu")), "/sub"));
    run_with(&bench, "c", vec![writable], "echo more > /w/more; rm /w/old").text();
    assert_eq!(listing(&bench.path("wu")), ["sub/", "sub/more", "sub/old"]);
    assert!(fs::symlink_metadata(bench.path("wu/sub/old")).unwrap().rdev() == 0, "a whiteout");
    let gone = mount("/w", layers(None, "absent"));
    let error = run_with(&bench, "d", vec![gone], "true").outcome.unwrap_err().to_string();
    assert_eq!(error, "mount source `absent` for `/w`: No such file or directory (os error 2)");
}

#[test]
fn tmpfs_takes_size_and_the_covered_mode() {
    let Some(bench) = Bench::new() else { return };
    fs::set_permissions(bench.path("base/root"), fs::Permissions::from_mode(0o710)).unwrap();
    let tmpfs = |size| MountSource::Tmpfs { size, mode: None };
    let mounts = vec![mount("/root", tmpfs(None)), mount("/new", tmpfs(Some(1 << 20)))];
    let script = "stat -c %a /root /new; stat -f -c %T /new; dd if=/dev/zero of=/new/f bs=1M count=2 2>/dev/null || echo full";
    assert_eq!(run_with(&bench, "a", mounts, script).text(), "710\n1777\ntmpfs\nfull\n");
}

#[test]
fn secrets_are_in_memory_with_their_owner() {
    let Some(bench) = Bench::new() else { return };
    let secret = MountSource::Secret { data: b"hush\n\xff".to_vec(), uid: 1000, gid: 7, mode: 0o440 };
    let script =
        "stat -c '%u %g %a' /run/secrets/id; cat /run/secrets/id | wc -c; stat -f -c %T /run/secrets/id";
    let ran = run_with(&bench, "a", vec![mount("/run/secrets/id", secret)], script);
    assert_eq!(ran.text(), "1000 7 440\n6\ntmpfs\n");
    assert_eq!(listing(&bench.path("a")), MARKS);
}

#[test]
fn sockets_and_single_files() {
    let Some(bench) = Bench::new() else { return };
    let _listener = std::os::unix::net::UnixListener::bind(bench.path("agent")).unwrap();
    fs::write(bench.path("one"), "1").unwrap();
    let file = |name: &str| MountSource::File { path: bench.path(name) };
    let mounts = vec![mount("/run/agent.0", file("agent")), mount("/etc/passwd", file("one"))];
    let ran = run_with(&bench, "a", mounts, "test -S /run/agent.0 && echo socket; cat /etc/passwd");
    assert_eq!(ran.text(), "socket\n1");
    let missing =
        run_with(&bench, "b", vec![mount("/x", file("none"))], "true").outcome.unwrap_err().to_string();
    assert!(missing.contains("/none` for `/x`: No such file"), "{missing}");
}

#[test]
fn a_volume_shows_the_mounts_below_it() {
    if !is_root() {
        return skip("probe root: mounts are made");
    }
    // A mount table of this thread's own, which what it starts shares.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount_on(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
    let host = tempfile::tempdir().unwrap();
    let below = host.path().join("below");
    fs::create_dir(&below).unwrap();
    mount_on(Some("tmpfs"), &below, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    fs::write(below.join("f"), "deep\n").unwrap();
    if let Some(bench) = Bench::new() {
        let mut volume = mount("/v", MountSource::Volume { path: host.path().to_owned() });
        let script = "cat /v/below/f; echo more >> /v/below/f; \
                      grep -c ' /v/below .*nodev' /proc/self/mountinfo";
        assert_eq!(run_with(&bench, "a", vec![volume.clone()], script).text(), "deep\n1\n");
        assert_eq!(fs::read_to_string(below.join("f")).unwrap(), "deep\nmore\n");
        volume.read_only = true;
        assert_eq!(run_with(&bench, "b", vec![volume], "touch /v/below/g").code(), 1);
    }
    umount(&below).unwrap();
}

#[test]
fn a_later_mount_lies_on_an_earlier_one() {
    let Some(bench) = Bench::new() else { return };
    fs::create_dir(bench.path("outer")).unwrap();
    fs::create_dir(bench.path("inner")).unwrap();
    fs::write(bench.path("inner/f"), "deep").unwrap();
    let mounts = vec![
        mount("/m", directory(&bench.path("outer"), "")),
        mount("/m/a/b", directory(&bench.path("inner"), "")),
    ];
    assert_eq!(run_with(&bench, "a", mounts, "cat /m/a/b/f").text(), "deep");
    assert_eq!(listing(&bench.path("a")), MARKS);
}

#[test]
fn stubs_vanish_unless_the_command_filled_them() {
    let Some(bench) = Bench::new() else { return };
    let tmpfs = || MountSource::Tmpfs { size: None, mode: None };
    let mounts = || vec![mount("/a/b/c", tmpfs()), mount("/opt/x/y", tmpfs()), mount("/etc/sub", tmpfs())];
    run_with(&bench, "u1", mounts(), "true").text();
    assert_eq!(listing(&bench.path("u1")), ["dev/", "etc/", "proc/", "sys/"]);
    run_with(&bench, "u2", mounts(), "echo kept > /a/b/file; echo x > /opt/x/z").text();
    let expected = ["a/", "a/b/", "a/b/file", "dev/", "etc/", "opt/", "opt/x/", "opt/x/z", "proc/", "sys/"];
    assert_eq!(listing(&bench.path("u2")), expected);
}

#[test]
fn stubs_leave_no_trace_in_times() {
    let Some(bench) = Bench::new() else { return };
    let stamp = |dir: &Path| {
        let m = fs::metadata(dir).unwrap();
        (m.mtime(), m.mtime_nsec())
    };
    let before = stamp(&bench.path("base/etc"));
    let inside = mount("/etc/sub", MountSource::Tmpfs { size: None, mode: None });
    run_with(&bench, "u1", vec![inside.clone()], "true").text();
    assert_eq!(stamp(&bench.path("u1/etc")), before);
    run_with(&bench, "u2", vec![inside.clone()], "touch -d '2001-02-03 00:00:00' /etc").text();
    assert_eq!(stamp(&bench.path("u2/etc")).0, 981_158_400);
    run_with(&bench, "u3", vec![inside], "echo x > /etc/mine").text();
    assert_ne!(stamp(&bench.path("u3/etc")), before);
}

#[test]
fn an_empty_root_keeps_dev_proc_sys_only() {
    let Some(bench) = Bench::new() else { return };
    let mut overlay = bench.overlay("empty");
    overlay.lower.clear();
    let bin = mount("/tool", MountSource::File { path: bench.path("base/bin/busybox") });
    let mut spec = bench.spec_over(RootFs::Overlay(overlay), "");
    spec.args = ["/tool", "true"].map(str::to_owned).to_vec();
    spec.mounts = vec![bin];
    // The applet is chosen by the first argument when the program's name is none.
    spec.args = ["/tool", "sh", "-c", "true"].map(str::to_owned).to_vec();
    bench.run_spec(&spec).outcome.unwrap();
    assert_eq!(listing(&bench.path("empty")), ["dev/", "proc/", "sys/"]);
    for dir in ["dev", "proc", "sys"] {
        assert_eq!(fs::metadata(bench.path("empty").join(dir)).unwrap().mode() & 0o7777, 0o755, "{dir}");
    }
}

#[test]
fn more_than_a_hundred_layers() {
    let Some(bench) = Bench::new() else { return };
    let mut overlay = bench.overlay("many");
    for n in 0..150 {
        let layer = bench.path(&format!("layer{n}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(format!("f{n}")), "").unwrap();
        fs::write(layer.join("top"), n.to_string()).unwrap();
        overlay.lower.push(layer);
    }
    let ran =
        bench.run_spec(&bench.spec_over(RootFs::Overlay(overlay), "ls / | grep -c '^f[0-9]'; cat /top"));
    assert_eq!(ran.text(), "150\n149");
}

#[test]
fn read_only_root_and_plain_directory() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec("touch /x 2>/dev/null || echo ro; touch /dev/shm/y && echo rw");
    spec.read_only_root = true;
    assert_eq!(bench.run_spec(&spec).text(), "ro\nrw\n");
    let plain = bench.spec_over(RootFs::Directory(bench.path("base")), "echo hi > /made; ls /etc");
    assert_eq!(bench.run_spec(&plain).text(), "group\nhosts\npasswd\nresolv.conf\n");
    assert_eq!(fs::read_to_string(bench.path("base/made")).unwrap(), "hi\n");
    assert!(!bench.path("base/etc/hosts").exists() && !bench.path("base/etc/resolv.conf").exists());
}

/// T4: whatever the selector says, it stays below its base.
#[test]
fn subpaths_do_not_escape() {
    let Some(bench) = Bench::new() else { return };
    let (canary, cache) = (bench.path("canary"), bench.path("cache"));
    fs::create_dir(&cache).unwrap();
    fs::write(&canary, "host").unwrap();
    symlink(&canary, cache.join("link")).unwrap();
    symlink("../canary", cache.join("up")).unwrap();
    symlink("/", cache.join("root")).unwrap();
    symlink(bench.dir.path(), cache.join("dir")).unwrap();
    for subpath in ["../canary", "link", "up", "root/../canary", "../../../../../../etc/passwd", "dir/canary"]
    {
        let ran =
            run_with(&bench, "a", vec![mount("/m", directory(&cache, subpath))], "cat /m; echo pwned > /m");
        assert!(ran.outcome.is_err(), "{subpath}: {ran:?}");
    }
    assert_eq!(fs::read_to_string(&canary).unwrap(), "host");
}

/// T4: a step that shares the cache swaps the selected directory for a link to the host all the time.
#[test]
fn a_swapped_subpath_does_not_escape() {
    let Some(bench) = Bench::new() else { return };
    let (cache, secret) = (bench.path("cache"), bench.path("secret"));
    fs::create_dir_all(cache.join("d/e")).unwrap();
    fs::create_dir_all(secret.join("e")).unwrap();
    fs::write(secret.join("e/canary"), "host").unwrap();
    let link = cache.join("l");
    symlink(&secret, &link).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for (from, to) in [("d", "t"), ("l", "d"), ("d", "l"), ("t", "d")] {
                    // A step may have made the directory anew in the gap.
                    let _occupied = fs::rename(cache.join(from), cache.join(to));
                }
            }
        });
        for n in 0..40 {
            let mounts = vec![
                mount("/m", directory(&cache, "d/e")),
                mount("/c", directory(&cache, "")),
                mount("/c/d/x", MountSource::Tmpfs { size: None, mode: None }),
            ];
            let ran = run_with(&bench, &format!("u{n}"), mounts, "ls /m; touch /m/z");
            assert!(!String::from_utf8_lossy(&ran.output).contains("canary"), "{ran:?}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(listing(&secret), ["e/", "e/canary"]);
}

/// T9 and T5: targets and stubs behind links of the image stay inside, also when the command swaps parents.
#[test]
fn targets_and_stubs_stay_inside() {
    let Some(bench) = Bench::new() else { return };
    let host = bench.path("host");
    fs::create_dir_all(host.join("d")).unwrap();
    fs::write(host.join("d/hosts"), "").unwrap();
    fs::write(host.join("d/f"), "").unwrap();
    let before = listing(&host);
    let base = bench.path("base");
    symlink(&host, base.join("out")).unwrap();
    symlink("/../../../../../../../../..", base.join("top")).unwrap();
    symlink("../run/resolv.conf", base.join("etc/resolv.conf")).unwrap();
    let tmpfs = || MountSource::Tmpfs { size: None, mode: None };
    let mounts = vec![mount("/out/new", tmpfs()), mount("/top/made", tmpfs()), mount("/../../esc", tmpfs())];
    let ran = run_with(&bench, "u1", mounts, "cat /run/resolv.conf >/dev/null && ls -d /made /esc");
    assert_eq!(ran.text(), "/esc\n/made\n");
    assert_eq!(listing(&host), before);
    // The link's target, made inside, begins as the path of this test's files.
    let made = format!("{}/", host.iter().nth(1).unwrap().to_str().unwrap());
    let mut left = vec!["dev/", "proc/", "sys/", &made];
    left.sort_unstable();
    assert_eq!(listing(&bench.path("u1")), left);
    // The command replaces a stub's parent by a link to a place with entries of the same names.
    let swap = format!(
        "umount /q/d/f; rm -rf /q 2>/dev/null; mv /q /r; ln -s {} /q; mv /etc /e; ln -s {}/d /etc",
        host.display(),
        host.display()
    );
    let file = MountSource::File { path: bench.path("base/etc/passwd") };
    run_with(&bench, "u2", vec![mount("/q/d/f", file)], &format!("{swap}; true")).code();
    assert_eq!(listing(&host), before);
}
