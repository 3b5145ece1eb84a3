//! Directories that travel over the session: what is sent again, what is kept of them, and what becomes of that.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tests::archive::Image;
use tests::{Daemon, Output, Scene, ready};

/// A command of a client that can pass no descriptors: beside the link to the socket there is no side socket.
fn far(daemon: &Daemon, cwd: &Path, args: &[&str]) -> Output {
    let link = daemon.dir().join("far");
    if !link.is_symlink() {
        fs_err::os::unix::fs::symlink(daemon.dir().join("sock"), &link).unwrap();
    }
    let mut command = std::process::Command::new(tests::program());
    command.arg("--addr").arg(format!("unix://{}", link.display())).args(args).current_dir(cwd);
    tests::output(command.stdin(Stdio::null()))
}

fn build(daemon: &Daemon, context: &Path, archive: &Path) -> Output {
    let output = format!("type=oci,dest={}", archive.display());
    far(daemon, context, &["build", "--progress=plain", "-o", &output, "."]).ok()
}

/// Bytes that were transferred for the context, as the progress shows them.
fn transferred(out: &Output) -> f64 {
    let last = out.stderr.lines().rfind(|line| line.contains("transferring context:")).expect("it is shown");
    let text = last.split("transferring context: ").nth(1).unwrap().split(' ').next().unwrap();
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap();
    let factor = match &text[unit..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        other => panic!("unit {other}"),
    };
    text[..unit].parse::<f64>().unwrap() * factor
}

/// The copies that the daemon has, as `du` shows them.
fn copies(daemon: &Daemon, cwd: &Path) -> Vec<String> {
    let du = daemon.run(cwd, &["du", "--verbose", "--filter", "type==source.local"]).ok().stdout;
    du.lines().filter(|line| line.contains("source.local")).map(str::to_owned).collect()
}

fn file(archive: &Path, path: &str) -> Option<String> {
    Image::open(archive).file(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn context(scene: &Scene) -> PathBuf {
    let context = scene.context();
    fs_err::create_dir_all(context.join("s/sub")).unwrap();
    scene.write("Dockerfile", "FROM scratch\nCOPY s /s\n").write("s/large", &"x".repeat(3_000_000));
    scene.write("s/sub/small", "one").write("s/gone", "gone");
    context
}

#[test]
fn only_what_changed_is_sent() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (context, archive) = (context(&scene), scene.path("o.tar"));
    let first = build(&scene.daemon, &context, &archive);
    assert!(transferred(&first) > 2.9e6, "{}", first.stderr);
    let second = build(&scene.daemon, &context, &archive);
    assert!(transferred(&second) < 2e3, "{}", second.stderr);
    assert_eq!(second.ran(), Vec::<String>::new(), "{}", second.stderr);

    scene.write("s/sub/small", "another one");
    fs_err::remove_file(context.join("s/gone")).unwrap();
    let third = build(&scene.daemon, &context, &archive);
    assert!(transferred(&third) < 2e3, "{}", third.stderr);
    assert_eq!(file(&archive, "s/sub/small").as_deref(), Some("another one"));
    assert_eq!((file(&archive, "s/gone"), file(&archive, "s/large").unwrap().len()), (None, 3_000_000));

    // Another part of the same directory.
    scene.write("Dockerfile", "FROM scratch\nCOPY s/sub /s\n");
    build(&scene.daemon, &context, &archive);
    assert_eq!(file(&archive, "s/small").as_deref(), Some("another one"));

    let shown = copies(&scene.daemon, &context);
    let described = shown.iter().filter(|line| line.contains("local source for context")).count();
    assert!(described >= 1 && shown.iter().all(|line| line.contains(" true ")), "{shown:?}");
    far(&scene.daemon, &context, &["prune", "--force", "--filter", "type==source.local"]).ok();
    assert!(copies(&scene.daemon, &context).is_empty());
    scene.write("Dockerfile", "FROM scratch\nCOPY s /s\n");
    let anew = build(&scene.daemon, &context, &archive);
    assert!(transferred(&anew) > 2.9e6, "{}", anew.stderr);
}

#[test]
fn builds_at_the_same_time_have_copies_of_their_own() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let context = context(&scene);
    scene.write("Dockerfile", "FROM base\nCOPY s/sub/small /f\nARG N\nRUN sleep 2; cat /f\n");
    let daemon = &scene.daemon;
    std::thread::scope(|scope| {
        let build = |n: &'static str| {
            let context = &context;
            scope.spawn(move || {
                far(daemon, context, &["build", "--progress=plain", "--build-arg", n, "."]).ok()
            })
        };
        let first = build("N=1");
        std::thread::sleep(std::time::Duration::from_millis(700));
        scene.write("s/sub/small", "two");
        let second = build("N=2");
        let (first, second) = (first.join().unwrap(), second.join().unwrap());
        assert!(second.stderr.contains(" two"), "{}", second.stderr);
        assert!(first.stderr.contains(" one") || first.stderr.contains(" two"), "{}", first.stderr);
    });
    assert!(!copies(daemon, &context).is_empty());
}

#[test]
fn copies_outlive_kills_but_are_not_believed_after_a_power_cut() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let (context, archive) = (context(&scene), scene.path("o.tar"));
    build(&scene.daemon, &context, &archive);
    scene.daemon.kill();
    scene.daemon.again();
    let out = build(&scene.daemon, &context, &archive);
    assert!(transferred(&out) < 2e3, "{}", out.stderr);

    // A build that is killed while it has its copy.
    scene.write("s/sub/small", "changed").write("s/second", &"y".repeat(2_000_000));
    std::thread::scope(|scope| {
        let link = scene.daemon.dir().join("far");
        let mut command = std::process::Command::new(tests::program());
        command.arg("--addr").arg(format!("unix://{}", link.display()));
        command.args(["build", "--progress=plain", "."]).current_dir(&context).stdin(Stdio::null());
        let client = scope.spawn(move || tests::output(&mut command));
        std::thread::sleep(std::time::Duration::from_millis(30));
        scene.daemon.kill();
        client.join().unwrap();
    });
    scene.daemon.set_boot_id("another boot");
    scene.daemon.again();
    build(&scene.daemon, &context, &archive);
    assert_eq!(file(&archive, "s/sub/small").as_deref(), Some("changed"));
    assert_eq!(file(&archive, "s/second").unwrap().len(), 2_000_000);
    assert_eq!(file(&archive, "s/large").unwrap().len(), 3_000_000);
}
