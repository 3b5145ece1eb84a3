//! Starting, stopping, and being started.

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::{Daemon, Scene, output, program, ready};

#[test]
fn a_stale_socket_is_replaced() {
    if !ready() {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let socket = dir.path().join("sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let mut child = daemon(
        &["--root", dir.path().join("root").to_str().unwrap()],
        &format!("unix://{}", socket.display()),
    )
    .spawn()
    .unwrap();
    let addr = format!("unix://{}", socket.display());
    let begun = Instant::now();
    while output(Command::new(program()).args(["--addr", &addr, "images"])).code != 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not serve");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!socket.exists());
}

/// `rbuild daemon` with an address.
fn daemon(args: &[&str], addr: &str) -> Command {
    let mut command = Command::new(program());
    command.arg("daemon").args(args).args(["--addr", addr]).stdin(Stdio::null());
    command
}

#[test]
fn one_root_has_one_daemon() {
    if !ready() {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let mut first = Daemon::start(&dir.path().join("d"), "");
    let (root, other) = (first.root(), dir.path().join("other"));
    let root = root.to_str().unwrap();
    let second = output(&mut daemon(&["--root", root], &format!("unix://{}", other.display()))).fails();
    assert!(second.stderr.contains(root) && second.stderr.contains("is in use"), "{}", second.stderr);
    assert!(!other.exists());
    let second = output(&mut daemon(&["--root", other.to_str().unwrap()], &first.addr())).fails();
    assert!(second.stderr.contains("another daemon listens"), "{}", second.stderr);
    assert!(first.alive());
    // What lies beside the first one's socket is its own, too.
    let side = format!("{}.fd", first.addr().replace("unix://", ""));
    UnixStream::connect(side).unwrap();
    first.run(dir.path(), &["images"]).ok();
}

#[test]
fn sigterm_during_a_build() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    scene.write("Dockerfile", "FROM base\nRUN trap '' TERM; echo started; sleep 1000\n");
    let args = ["build", "--progress=plain", "."];
    let mut client = scene.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stderr.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().ends_with(" started")));
    let begun = Instant::now();
    scene.daemon.stop();
    // SIGTERM's promise is ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    assert!(!std::path::Path::new(&scene.daemon.addr().replace("unix://", "")).exists());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(client.wait().unwrap().code(), Some(1));
    assert!(rest.iter().any(|l| l.starts_with("ERROR: ")), "{rest:?}");
    scene.daemon.again();
    scene.dockerfile("FROM base\nRUN true\n", &["-t", "x"]).ok();
}

/// In a mount namespace of its own, where root's places are empty.
#[test]
fn the_client_starts_a_daemon() {
    if !ready() {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    tests::base::context(dir.path(), &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n")]);
    let script = r#"
        mount -t tmpfs t /run && mount -t tmpfs t /var/lib || exit 77
        cd "$1"
        "$0" build -q -t hello . && "$0" images && "$0" version
        code=$?
        ls /run/rbuild /var/lib/rbuild >&2
        for pid in $(pidof rbuild buildd); do
            [ "$(readlink /proc/$pid/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ] && pids="$pids $pid"
        done
        kill $pids
        for i in $(seq 100); do [ -S /run/rbuild/rbuild.sock ] || exit $code; sleep 0.1; done
        echo "the daemon stays" >&2
        exit 1
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(program()).arg(dir.path());
    let out = output(command.env_remove("RBUILD_HOST"));
    if out.code == 77 {
        eprintln!("SKIPPED: needs to mount a tmpfs");
        return;
    }
    let out = out.ok();
    assert!(out.stdout.starts_with("sha256:") && out.stdout.contains("hello"), "{out:?}");
    assert!(out.stderr.contains("rbuild.sock") && out.stderr.contains("blobs"), "{out:?}");
}
