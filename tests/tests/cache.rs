//! What the cache may answer, and what it must not.

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use proto::control::DiskUsageRequest;
use tests::{Api, Output, Scene, output, program, ready};
use tonic::Code;

/// Builds and returns the file `/f` of the result.
fn content(scene: &Scene) -> Vec<u8> {
    let out = scene.path("out");
    scene.build(&["-o", &format!("type=local,dest={}", out.display())]).ok();
    fs_err::read(out.join("f")).unwrap()
}

#[test]
fn a_file_rewritten_during_the_build() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", "FROM scratch\nCOPY f /f\n");
    let file = scene.context().join("f");
    for round in 0..6u8 {
        let (good, other) = (vec![2 * round; 8 << 20], vec![2 * round + 1; 8 << 20]);
        fs_err::write(&file, &good).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs_err::write(&file, &other).unwrap();
                    fs_err::write(&file, &good).unwrap();
                }
            });
            let out = scene.build(&["-t", "x"]);
            done.store(true, Ordering::Relaxed);
            assert!(out.code == 0 || out.stderr.contains("changed"), "{}", out.stderr);
        });
        assert!(content(&scene) == good, "round {round}: the build kept what the file no longer is");
    }
}

#[test]
fn edits_of_the_same_size_within_one_tick() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", "FROM scratch\nCOPY f /f\n");
    let file = scene.context().join("f");
    for round in 0..12 {
        let text = format!("{round:04}");
        fs_err::write(&file, &text).unwrap();
        let handle = fs_err::File::options().write(true).open(&file).unwrap();
        handle.file().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(String::from_utf8(content(&scene)).unwrap(), text);
    }
}

/// A command of the client as an ordinary user; `None` where that cannot be had.
///
/// `fds` is the mode of the socket that takes directories as descriptors.
fn as_user(scene: &Scene, fds: u32, args: &[&str]) -> Option<Command> {
    for (path, mode) in [(scene.path(""), 0o755), (scene.path("d"), 0o755)] {
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let socket = scene.daemon.addr().replace("unix://", "");
    for (path, mode) in [(format!("{socket}.fd"), fds), (socket, 0o666)] {
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let command = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=1000", "--regid=1000", "--clear-groups"]).arg(program());
        command.args(["--addr", &scene.daemon.addr()]).args(args).current_dir(scene.context());
        command.env("HOME", "/nonexistent").stdin(Stdio::null());
        command
    };
    let probe = command(&["version"]).output().is_ok_and(|o| o.status.success());
    if !probe {
        eprintln!("SKIPPED: needs setpriv, and a program that uid 1000 can run");
    }
    probe.then(|| command(args))
}

#[test]
fn a_file_that_the_user_cannot_read() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", "FROM scratch\nCOPY f /f\n").write("f", "root's own");
    chown(scene.context(), Some(1000), Some(1000)).unwrap();
    let file = scene.context().join("f");
    fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let args = ["build", "--progress=plain", "-o", "type=tar,dest=o.tar", "."];
    if as_user(&scene, 0o666, &args).is_none() {
        return;
    }
    let refused = |out: Output| {
        let out = out.fails();
        assert!(out.stderr.to_lowercase().contains("permission denied"), "{}", out.stderr);
        assert!(!scene.context().join("o.tar").exists());
    };
    // The directory as a descriptor, then synchronised over the session.
    for fds in [0o666, 0o600] {
        refused(output(&mut as_user(&scene, fds, &args).unwrap()));
    }
    assert_eq!(content(&scene), b"root's own");
    // The cache knows it now, which must not help those who cannot read it.
    for fds in [0o666, 0o600] {
        refused(output(&mut as_user(&scene, fds, &args).unwrap()));
    }
}

#[test]
fn times_that_a_step_set_count() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    for year in ["2001", "2002"] {
        let text = format!(
            "FROM base\nRUN echo x > /f && touch -d '{year}-03-04 05:06:07' /f\nRUN stat -c %y /f | cut -c1-19\n"
        );
        let out = scene.dockerfile(&text, &["-t", "x"]).ok();
        assert!(out.stderr.contains(&format!("{year}-03-04 05:06:07\n")), "{}", out.stderr);
    }
}

#[test]
fn equal_content_keeps_what_follows() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = |n| format!("FROM base\nRUN : {n}; mkdir /d; echo same > /d/f\nRUN cat /d/f\nRUN echo > /g\n");
    assert_eq!(scene.dockerfile(&text(1), &["-t", "x"]).ok().ran().len(), 3);
    let again = scene.dockerfile(&text(2), &["-t", "x"]).ok();
    assert_eq!(again.ran().len(), 1, "{}", again.stderr);
    assert!(again.ran()[0].contains("RUN : 2;"), "{:?}", again.ran());
    let other = scene.dockerfile(&text(3).replace("same", "other"), &["-t", "x"]).ok();
    assert_eq!(other.ran().len(), 3, "{}", other.stderr);
    assert!(other.stderr.contains(" other\n"), "{}", other.stderr);
}

#[test]
fn another_path_of_what_is_known_is_another_step() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let stage = "FROM base AS s\nRUN mkdir /a /b; echo a > /a/x; echo b > /b/x\n";
    for last in [
        "FROM base\nCOPY --from=s /%/x /f\n",
        "FROM base\nRUN --mount=from=s,source=/%,target=/m cat /m/x > /f\n",
        // From its own base, and beside another mount of the same path.
        "FROM s\nCOPY --from=s /%/x /f\n",
        "FROM s\nRUN --mount=from=s,source=/%,target=/m cat /m/x > /f\n",
        "FROM base\nRUN --mount=from=s,source=/a,target=/m --mount=from=s,source=/b,target=/n \
         --mount=from=s,source=/%,target=/o cat /o/x > /f\n",
        "FROM base\nCOPY --from=s /a/x /b/x /%/x /f\n",
    ] {
        for path in ["a", "b"] {
            scene.write("Dockerfile", &format!("{stage}{}", last.replace('%', path)));
            assert_eq!(String::from_utf8(content(&scene)).unwrap(), format!("{path}\n"), "{last}");
        }
    }
}

#[test]
fn a_stage_made_anew_is_seen_by_what_follows() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write(
        "Dockerfile",
        "FROM base AS s\nRUN cat /proc/sys/kernel/random/uuid > /x\nFROM base\nCOPY --from=s /x /f\nRUN cat /f\n",
    );
    let first = content(&scene);
    scene.build(&["-t", "x", "--no-cache-filter=s"]).ok();
    let second = content(&scene);
    assert_ne!(first, second);
    assert_eq!(second, content(&scene), "and it stays");
}

#[test]
fn builds_at_once_run_common_steps_once() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let common =
        "FROM base\nRUN --mount=type=cache,target=/c echo x >> /c/log && sleep 1 && echo shared > /s\n";
    for name in ["one", "two", "three"] {
        scene.write(name, &format!("{common}RUN echo {name} && cat /s\n"));
    }
    let start = |name: &str| {
        let mut command = scene.command(&["build", "--progress=plain", "-t", name, "-f", name, "."]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running = ["one", "one", "two", "three"].map(start);
    for child in running {
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && text.contains(" shared\n"), "{text}");
    }
    let count = "FROM base\nRUN --mount=type=cache,target=/c echo runs: $(wc -l < /c/log)\n";
    let out = scene.dockerfile(count, &["-t", "count"]).ok();
    assert!(out.stderr.contains("runs: 1\n"), "{}", out.stderr);
}

#[test]
fn what_is_told_of_a_cache_mount() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    for n in 1..=3 {
        let text = format!("FROM base\nRUN --mount=type=cache,id=all,target=/c echo {n} >> /c/f\n");
        scene.dockerfile(&text, &["-t", "x"]).ok();
    }
    let told = scene.daemon.run(scene.daemon.dir(), &["du", "--verbose"]).ok().stdout;
    let name = "cached mount /c from exec /bin/sh -c echo 1 >> /c/f with id \"/all\"";
    let cache = told.lines().find_map(|line| line.strip_suffix(name));
    assert!(cache.is_some_and(|columns| columns.split_whitespace().last() == Some("3")), "{told}");
}

#[test]
fn pruning_between_and_during_builds() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = "FROM base\nRUN echo one > /f\nRUN cat /f && sleep 1\n";
    assert_eq!(scene.dockerfile(text, &[]).ok().ran().len(), 2);
    assert!(scene.run(&["prune", "--all", "--force"]).ok().stdout.contains("Total: "));
    assert_eq!(scene.build(&[]).ok().ran().len(), 2);
    let args = ["build", "--progress=plain", "--no-cache", "-t", "x", "."];
    let building = scene.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..4 {
        scene.run(&["prune", "--all", "--force"]).ok();
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let out = building.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(scene.run(&["run", "--rm", "x", "cat", "/f"]).ok().stdout, "one\n");
}

#[test]
fn a_filter_that_cannot_be_read_is_the_clients_mistake() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let (mut control, filter) = (api.control(), vec!["color==red".to_owned()]);
    let asked = DiskUsageRequest { filter, ..DiskUsageRequest::default() };
    let refused = api.runtime.block_on(control.disk_usage(asked)).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}
