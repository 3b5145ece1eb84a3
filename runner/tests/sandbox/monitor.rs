//! Sandboxes that outlive their launcher.

use std::io::{BufRead, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runner::{ExitStatus, Monitored, NetworkMode, RunnerError, SandboxHandle, SandboxSpec, Stdio};

use crate::lifecycle::{kill, launcher_pid};
use crate::support::{Bench, launcher, skip};

/// A monitored sandbox and this test's ends of it.
struct Container {
    handle: SandboxHandle,
    stdin: std::io::PipeWriter,
    stdout: BufReader<std::io::PipeReader>,
    alive: std::io::PipeReader,
}

impl Container {
    fn start(launcher: &runner::Launcher, spec: &SandboxSpec) -> Self {
        let (handle, control) = SandboxHandle::pair().unwrap();
        let (alive, writer) = std::io::pipe().unwrap();
        let (stdin_end, stdin) = std::io::pipe().unwrap();
        let (stdout, stdout_end) = std::io::pipe().unwrap();
        let stdio = Stdio { stdin: Some(stdin_end.into()), stdout: Some(stdout_end.into()), stderr: None };
        let monitored = Monitored { control, alive: OwnedFd::from(writer) };
        launcher.spawn_monitored(spec, stdio, &monitored).unwrap();
        Self { handle, stdin, stdout: BufReader::new(stdout), alive }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Returns when the monitor is gone.
    fn wait_for_the_monitor(mut self) {
        std::io::copy(&mut self.alive, &mut std::io::sink()).unwrap();
    }
}

fn cgroups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                let path = entry.path();
                if path.ends_with(format!("rbuild-{id}")) { found.push(path) } else { pending.push(path) }
            }
        }
    }
    found
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn it_goes_on_without_launcher_and_cleans_up() {
    let id = format!("o{}", std::process::id() % 1_000_000);
    let Some(bench) = Bench::with_id(&id) else { return };
    let mut spec = bench.spec("echo up; read x; echo got $x; exit 3");
    spec.limits.pids = runner::CgroupSupport::detect().pids.map(|_| 50);
    let mut container = Container::start(&bench.launcher, &spec);
    assert_eq!(container.line(), "up\n");
    assert!(container.handle.started());
    let Bench { launcher: ours, dir: _dir, .. } = bench;
    drop(ours);
    container.stdin.write_all(b"word\n").unwrap();
    assert_eq!(container.line(), "got word\n");
    assert_eq!(container.handle.wait().unwrap().status, ExitStatus::Code(3));
    container.wait_for_the_monitor();
    eventually("its cgroups are gone", || cgroups(&id).is_empty());
}

#[test]
fn a_killed_launcher_does_not_matter() {
    let Some(bench) = Bench::new() else { return };
    let mut container = Container::start(&bench.launcher, &bench.spec("echo up; read x; exit 4"));
    assert_eq!(container.line(), "up\n");
    kill(launcher_pid(&bench));
    container.stdin.write_all(b"\n").unwrap();
    assert_eq!(container.handle.wait().unwrap().status, ExitStatus::Code(4));
    container.wait_for_the_monitor();
}

#[test]
fn a_killed_monitor_takes_its_sandbox_along() {
    let Some(bench) = Bench::new() else { return };
    let spec = bench.spec("echo up; cut -d' ' -f4 /proc/self/stat; read x");
    kill_the_monitor(&bench, &spec);
}

/// The kernel forgets with whom a process should die when that executes a set-id program.
#[test]
fn a_killed_monitor_takes_a_set_id_program_along() {
    let Some(bench) = Bench::new() else { return };
    let program = bench.path("base/bin/busybox-set-id");
    std::fs::copy("/bin/busybox", &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let mut spec = bench.spec("");
    let script = "echo up; cut -d' ' -f4 /proc/self/stat; read x";
    spec.args = ["/bin/busybox-set-id", "sh", "-c", script].map(str::to_owned).to_vec();
    spec.user.uid = 1000;
    kill_the_monitor(&bench, &spec);
}

fn kill_the_monitor(bench: &Bench, spec: &SandboxSpec) {
    let mut container = Container::start(&bench.launcher, spec);
    assert_eq!(container.line(), "up\n");
    let launcher = launcher_pid(bench);
    let children = std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).unwrap();
    for keeper in children.split_whitespace() {
        kill(keeper.parse().unwrap());
    }
    assert_eq!(container.handle.wait(), Err(RunnerError::KeeperGone));
    container.line();
    assert_eq!(container.line(), "", "its output has ended");
    container.wait_for_the_monitor();
}

#[test]
fn a_dropped_handle_ends_it() {
    let Some(bench) = Bench::new() else { return };
    let mut container = Container::start(&bench.launcher, &bench.spec("echo up; sleep 1000"));
    assert_eq!(container.line(), "up\n");
    let Container { handle, stdin: _stdin, mut stdout, mut alive } = container;
    drop(handle);
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    std::io::copy(&mut alive, &mut std::io::sink()).unwrap();
}

#[test]
fn what_cannot_start_is_told() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec("");
    spec.args = vec!["/not/there".to_owned()];
    let container = Container::start(&bench.launcher, &spec);
    assert!(!container.handle.started());
    let outcome = container.handle.wait();
    assert!(matches!(outcome, Err(RunnerError::ProgramNotRunnable { .. })), "{outcome:?}");
    container.wait_for_the_monitor();
}

/// The firewall table belongs to all that use it, and the last of them removes it.
#[test]
fn the_network_lives_as_long_as_somebody_uses_it() {
    let id = format!("w{}", std::process::id() % 1_000_000);
    let Some(bench) = Bench::with_id(&id) else { return };
    if std::process::Command::new("nft").arg("--version").output().is_err() {
        skip("probe nft: package nftables is missing");
        return;
    }
    let tables = || {
        let out = std::process::Command::new("nft").args(["list", "tables"]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).matches(&format!("rbuild_{id}")).count()
    };
    let reach = "gw=$(ip route | grep default | cut -d' ' -f3); \
                 ping -c1 -W2 $gw >/dev/null && echo reached $gw; read x";
    let mut spec = bench.spec(reach);
    spec.network = NetworkMode::Isolated;
    let mut first = Container::start(&bench.launcher, &spec);
    let reached = first.line();
    assert!(reached.starts_with("reached 10."), "{reached}");
    let Bench { launcher: ours, dir, way } = bench;
    drop(ours);
    assert_eq!(tables(), 1, "a monitor still uses it");

    let bench = Bench { launcher: launcher(&id), dir, way };
    let mut spec = bench.spec(reach);
    spec.network = NetworkMode::Isolated;
    let mut second = Container::start(&bench.launcher, &spec);
    assert_eq!(second.line(), reached, "one network for both");
    assert_eq!(tables(), 1);
    drop(first.stdin);
    first.handle.wait().unwrap();
    eventually("the first link is gone", || links(&id) == 1);
    assert_eq!(tables(), 1, "the second uses it");
    let Bench { launcher: ours, dir: _dir, .. } = bench;
    drop(ours);
    assert_eq!(tables(), 1);
    drop(second.stdin);
    second.handle.wait().unwrap();
    eventually("the table is gone", || tables() == 0);
    eventually("the links are gone", || links(&id) == 0);
    let marker = format!("/run/rbuild-{id}.nft");
    eventually("the marker is gone", || !Path::new(&marker).exists());
}

fn links(id: &str) -> usize {
    let names = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    names.filter(|e| e.file_name().to_string_lossy().starts_with(&format!("rb{id}-"))).count()
}
