//! Starting, stopping, and being started.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::control::SolveRequest;
use tests::{Api, Daemon, Scene, base, output, program, ready};
use tonic::Code;

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

/// Tells a daemon to leave, and waits until it has noticed.
fn leave(daemon: &Daemon, signal: Signal) {
    let socket = daemon.addr().replace("unix://", "");
    kill(Pid::from_raw(daemon.pid()), signal).unwrap();
    while std::path::Path::new(&socket).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn builds_that_run_get_a_grace_time() {
    if !ready() {
        return;
    }
    let scene = Scene::with("shutdownGrace = \"30s\"\n");
    let (api, args) = (Api::connect(&scene.daemon), ["build", "--progress=plain", "-t", "x", "."]);
    scene.write("Dockerfile", "FROM base\nRUN echo started; sleep 2\nRUN echo more\n");
    let mut client = scene.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with(" started")));
    leave(&scene.daemon, Signal::SIGTERM);
    let refused = api.solve(SolveRequest { r#ref: "late".into(), ..SolveRequest::default() }).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(client.wait().unwrap().code(), Some(0), "{rest:?}");
    assert!(rest.iter().any(|line| line.ends_with(" more")), "{rest:?}");
}

#[test]
fn a_second_signal_cuts_the_grace_time() {
    if !ready() {
        return;
    }
    let mut scene = Scene::with("shutdownGrace = \"1000s\"\n");
    scene.write("Dockerfile", "FROM base\nRUN echo started; sleep 1000\n");
    let args = ["build", "--progress=plain", "."];
    let mut client = scene.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with(" started")));
    leave(&scene.daemon, Signal::SIGINT);
    assert!(client.try_wait().unwrap().is_none(), "the build goes on");
    scene.daemon.stop();
    assert_eq!(client.wait().unwrap().code(), Some(1));
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

/// Runs a shell script in a mount namespace of its own, where root's places are empty; none where that cannot be had. `$0` is
/// the program, `$1` a context whose image `x` has busybox.
fn in_empty_places(script: &str) -> Option<tests::Output> {
    let dir = tempfile::TempDir::new().unwrap();
    tests::base::busybox(&dir.path().join("root"));
    tests::base::context(dir.path(), &[("Dockerfile", "FROM scratch\nCOPY root /\n")]);
    let script =
        format!("mount -t tmpfs t /run && mount -t tmpfs t /var/lib || exit 77\ncd \"$1\"\n{script}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).arg(program()).arg(dir.path());
    let out = output(command.env_remove("RBUILD_HOST"));
    if out.code == 77 {
        eprintln!("SKIPPED: needs to mount a tmpfs");
        return None;
    }
    Some(out)
}

/// Helpers of the scripts about versions.
const VERSIONS: &str = r#"
    export RBUILD_VERSION_OVERRIDE
    as() { RBUILD_VERSION_OVERRIDE=$1; shift; "$0" "$@"; }
    told() { as "$1" version --daemon 2>&1 | sed -n 's/^daemon: rbuild \([^ ]*\) (pid \([0-9]*\).*/\1 \2/p; s/^ERROR: //p'; }
    until_gone() {
        for i in $(seq 200); do [ -S /run/rbuild/rbuild.sock ] || break; sleep 0.1; done
        # The root is the last that it lets go of.
        flock --timeout 20 /var/lib/rbuild/lock true || echo "it stays"
    }
"#;

#[test]
fn an_idle_daemon_of_another_version_is_replaced() {
    if !ready() {
        return;
    }
    let script = r#"
        first=$(told 1.0); again=$(told 1.0)
        [ "$first" = "$again" ] && echo "kept ${first% *}"
        second=$(told 2.0)
        [ "${first#* }" != "${second#* }" ] && echo "replaced ${second% *}"
        # Another API makes another version.
        third=$(told 2.0/9); echo "api ${third% *}"
        [ "${third#* }" != "${second#* }" ] && echo "replaced"
        # Two clients at once: one daemon, for both.
        (told 3.0 > a) & one=$!; (told 3.0 > b) & wait $one; wait
        read version pid < a
        cmp a b && echo "both $version"
        # A named daemon is used as it is.
        echo "named $(RBUILD_HOST=unix:///run/rbuild/rbuild.sock told 4.0/7 | cut -d' ' -f1)"
        kill $pid
        until_gone
    "#;
    let Some(out) = in_empty_places(&format!("{VERSIONS}{script}")) else { return };
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(
        lines,
        ["kept 1.0", "replaced 2.0", "api 2.0", "replaced", "both 3.0", "named 3.0"],
        "{out:?}"
    );
}

#[test]
fn a_busy_daemon_of_another_version_is_used_if_it_fits() {
    if !ready() {
        return;
    }
    let script = r#"
        as 1.0 build -q -t x . >/dev/null || exit
        mkdir c; printf 'FROM x\nRUN --network=none echo begun; sleep 1000\n' > c/Dockerfile
        RBUILD_VERSION_OVERRIDE=1.0 "$0" build --progress=plain c 2> log & build=$!
        until grep -q '[0-9] begun' log; do sleep 0.1; done
        echo "fits $(told 2.0 | cut -d' ' -f1)"
        echo "does not: $(told 2.0/9)"
        kill -INT $build; wait $build
        # What needs no daemon does not make it busy.
        mkfifo in
        RBUILD_VERSION_OVERRIDE=1.0 "$0" run -i --network none x sh -c 'echo up; read x; exit 7' < in > out & run=$!
        exec 9> in
        until grep -q up out; do sleep 0.1; done
        for i in $(seq 100); do new=$(told 2.0/9); [ "${new% *}" = 2.0 ] && break; sleep 0.1; done
        echo "replaced ${new% *}"
        echo >&9; wait $run; echo "exit $?"
        kill ${new#* }
        until_gone
        # One that was started by hand stays.
        RBUILD_VERSION_OVERRIDE=3.0 "$0" daemon 2>/dev/null & hand=$!
        until [ -S /run/rbuild/rbuild.sock ]; do sleep 0.1; done
        echo "by hand $(told 4.0 | cut -d' ' -f1)"
        echo "does not: $(told 4.0/9)"
        kill $hand; wait $hand
    "#;
    let Some(out) = in_empty_places(&format!("{VERSIONS}{script}")) else { return };
    let lines: Vec<&str> = out.stdout.lines().collect();
    let unusable = |version: &str, why: &str| {
        format!("does not: the daemon is of version {version}, which cannot be used, and stays: {why}")
    };
    let busy = unusable("1.0", "it is busy");
    let by_hand = unusable("3.0", "it was not started by a client");
    let expected = ["fits 1.0", &busy, "replaced 2.0", "exit 7", "by hand 3.0", &by_hand];
    assert_eq!(lines, expected, "{out:?}");
}

/// What a plain HTTP/1.1 client is answered.
fn http(socket: &std::path::Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn figures_have_an_address_of_their_own() {
    if !ready() {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let socket = dir.path().join("figures");
    let config = format!("[grpc]\ndebugAddress = \"unix://{}\"\n", socket.display());
    let mut daemon = Daemon::start(&dir.path().join("d"), &config);
    let context = dir.path().join("context");
    base::context(&context, &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    daemon.build(&context, &["-o", "type=cacheonly"]).ok();
    daemon.build(&context, &["--target", "none"]).fails();
    let answer = http(&socket, "GET /metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
    for line in [
        "rbuild_builds_total{status=\"done\"} 1",
        "rbuild_builds_total{status=\"failed\"} 1",
        "rbuild_builds_running 0",
        "# EOF",
    ] {
        assert!(answer.lines().any(|l| l == line), "no `{line}` in\n{answer}");
    }
    for (request, status) in [("GET /", "404"), ("GET /debug/pprof/", "404"), ("POST /metrics", "405")] {
        let answer = http(&socket, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    // A second daemon does not take the address away.
    let other = dir.path().join("other");
    let config = dir.path().join("other.toml");
    fs_err::write(&config, format!("[grpc]\ndebugAddress = \"unix://{}\"\n", socket.display())).unwrap();
    let taken = output(
        Command::new(program())
            .args(["daemon", "--addr", "tcp://127.0.0.1:0", "--root"])
            .arg(&other)
            .arg("--config")
            .arg(&config),
    );
    assert!(taken.fails().stderr.contains("another daemon listens on"));
    daemon.stop();
    assert!(!socket.exists());
    let bad = output(
        Command::new(program())
            .args(["daemon", "--addr", "tcp://127.0.0.1:0", "--debugaddr", "nonsense", "--root"])
            .arg(&other),
    );
    assert!(bad.fails().stderr.contains("invalid address `tcp://nonsense`"));
}
