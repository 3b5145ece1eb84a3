//! Ends of all sorts: limits, kills, a dead launcher, a dead daemon, and that nothing is left.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use runner::{ExitStatus, Limits, RunnerError, SandboxHandle, SandboxSpec, Stdio};

use crate::support::{Bench, launcher, run, skip};

/// Starts a script and waits for its first line.
fn start(bench: &Bench, spec: &SandboxSpec) -> (SandboxHandle, std::io::PipeReader, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let stdio = Stdio { stdout: Some(writer.into()), ..Stdio::default() };
    let handle = bench.launcher.spawn(spec, stdio).unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while reader.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    (handle, reader, String::from_utf8(line).unwrap())
}

/// Waits until a condition holds; panics after ten seconds.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Processes of this machine with `marker` among their arguments.
fn processes(marker: &str) -> usize {
    let command = |pid: &Path| fs::read(pid.join("cmdline")).unwrap_or_default();
    let mine = |entry: &fs::DirEntry| String::from_utf8_lossy(&command(&entry.path())).contains(marker);
    fs::read_dir("/proc").unwrap().flatten().filter(mine).count()
}

const TREE: &str =
    "(setsid sh -c 'trap \"\" TERM HUP; sleep MARKER' &) ; (sleep MARKER &); echo up; sleep MARKER";

/// A script whose tree of processes can be told from all others.
fn tree(bench: &Bench) -> (SandboxSpec, String) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let marker = format!("98{}{n}", std::process::id());
    (bench.spec(&TREE.replace("MARKER", &marker)), marker)
}

#[test]
fn kill_reaches_the_whole_tree() {
    let Some(bench) = Bench::new() else { return };
    let (spec, marker) = tree(&bench);
    let (handle, _reader, _) = start(&bench, &spec);
    eventually("the tree is up", || processes(&marker) >= 3);
    assert_eq!(handle.try_wait(), None);
    handle.kill();
    assert_eq!(handle.wait().unwrap().status, ExitStatus::Signal(9));
    assert_eq!(processes(&marker), 0, "gone when wait returns");
}

#[test]
fn dropping_the_handle_kills() {
    let Some(bench) = Bench::new() else { return };
    let (spec, marker) = tree(&bench);
    let (handle, _reader, _) = start(&bench, &spec);
    drop(handle);
    eventually("the tree is gone", || processes(&marker) == 0);
    assert_eq!(bench.run("echo next").text(), "next\n", "the keeper goes on");
}

#[test]
fn what_the_command_leaves_behind_dies_with_it() {
    let Some(bench) = Bench::new() else { return };
    let marker = format!("97{}", std::process::id());
    let ran = bench.run(&format!("(setsid sleep {marker} >/dev/null 2>&1 &); exit 4"));
    assert_eq!(ran.code(), 4);
    assert_eq!(processes(&marker), 0);
}

#[test]
fn signals_reach_the_command() {
    let Some(bench) = Bench::new() else { return };
    let spec = bench.spec("trap 'exit 42' TERM; echo up; while :; do sleep 0.05; done");
    let (handle, _reader, _) = start(&bench, &spec);
    handle.signal(15);
    assert_eq!(handle.wait().unwrap().status, ExitStatus::Code(42));
}

#[test]
fn a_dead_launcher_fails_its_sandboxes_and_can_be_replaced() {
    let Some(mut bench) = Bench::new() else { return };
    let (spec, marker) = tree(&bench);
    let (handle, _reader, _) = start(&bench, &spec);
    kill(launcher_pid(&bench));
    assert_eq!(handle.wait(), Err(RunnerError::LauncherGone));
    eventually("the tree is gone", || processes(&marker) == 0);
    eventually("the launcher is noticed", || bench.launcher.spawn(&spec, Stdio::default()).is_err());
    bench.launcher = launcher(&format!("s{}", std::process::id() % 1_000_000));
    assert_eq!(bench.run("echo again").text(), "again\n");
}

#[test]
fn a_dead_keeper_takes_its_sandbox_along() {
    let Some(bench) = Bench::new() else { return };
    let (spec, marker) = tree(&bench);
    let (handle, _reader, _) = start(&bench, &spec);
    for keeper in children(launcher_pid(&bench)) {
        kill(keeper);
    }
    assert_eq!(handle.wait(), Err(RunnerError::KeeperGone));
    eventually("the tree is gone", || processes(&marker) == 0);
    assert_eq!(bench.run("echo next").text(), "next\n");
}

#[test]
fn the_daemons_end_is_the_end_of_all() {
    let Some(bench) = Bench::new() else { return };
    let (spec, marker) = tree(&bench);
    let (handle, _reader, _) = start(&bench, &spec);
    let launcher = launcher_pid(&bench);
    // What a daemon's death does to its sockets.
    let Bench { launcher: ours, dir: _dir, .. } = bench;
    drop(ours);
    assert_eq!(handle.wait(), Err(RunnerError::LauncherGone));
    eventually("the tree is gone", || processes(&marker) == 0);
    assert!(!Path::new(&format!("/proc/{launcher}/cmdline")).exists());
}

#[test]
fn a_fork_bomb_is_bounded_and_dies() {
    let Some(bench) = Bench::new() else { return };
    if runner::CgroupSupport::detect().pids.is_none() {
        skip("probe cgroup: no pids controller");
        return;
    }
    let mut spec = bench.spec("f() { f | f & }; f 2>/dev/null; sleep 0.5; ls -d /proc/[0-9]* | wc -l");
    spec.limits = Limits { pids: Some(40), ..Limits::default() };
    let (handle, mut reader, first) = start(&bench, &spec);
    std::thread::sleep(Duration::from_millis(300));
    handle.kill();
    handle.wait().unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(first.is_empty() || first.trim().parse::<u32>().is_ok_and(|n| n <= 41), "{first} {rest}");
    let mut spec = bench.spec("for i in $(seq 60); do sleep 1 & done 2>/dev/null; jobs | wc -l");
    spec.limits.pids = Some(20);
    let ran = run(&bench.launcher, &spec);
    let text = String::from_utf8_lossy(&ran.output);
    assert!(!text.trim().ends_with("60"), "{text}");
    assert!(ran.outcome.unwrap().forks_refused);
    // The limit is lifted for a step without one.
    let ran = bench.run("for i in $(seq 60); do sleep 0.2 & done; wait; echo fine");
    assert_eq!(ran.text(), "fine\n");
    assert!(!ran.outcome.unwrap().forks_refused);
}

#[test]
fn memory_is_limited_and_said_so() {
    let Some(bench) = Bench::new() else { return };
    if runner::CgroupSupport::detect().memory.is_none() {
        skip("probe cgroup: no memory controller");
        return;
    }
    let mut spec = bench.spec("x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived");
    spec.limits.memory = Some(32 << 20);
    let exit = run(&bench.launcher, &spec).outcome.unwrap();
    assert!(exit.oom_killed && !exit.status.success(), "{exit:?}");
    assert!(!bench.run("true").outcome.unwrap().oom_killed);
}

/// A group of either version has them, and shows them to the command.
#[test]
fn limits_are_the_kernels_and_are_lifted_again() {
    let Some(bench) = Bench::new() else { return };
    let support = runner::CgroupSupport::detect();
    if support.memory.is_none() || support.cpu.is_none() || support.pids.is_none() {
        skip("probe cgroup: a controller is missing");
        return;
    }
    let script = "cd /sys/fs/cgroup; cat cpu.max cpu*/cpu.cfs_quota_us memory.max memory/memory.limit_in_bytes \
                  pids.max pids/pids.max 2>/dev/null | cut -d ' ' -f 1";
    let shown = |limits| bench.run_spec(&SandboxSpec { limits, ..bench.spec(script) }).text();
    let all = Limits { memory: Some(64 << 20), cpu_millis: Some(500), pids: Some(30) };
    // Half of a period of 100 ms, and one process more for the cradle.
    assert_eq!(shown(all), "50000\n67108864\n31\n");
    let lifted = shown(Limits { memory: Some(32 << 20), ..Limits::default() });
    // Groups that a keeper has not needed yet show nothing: another one may have taken this job.
    let [memory, others] = lifted.lines().partition::<Vec<_>, _>(|line| *line == "33554432").into();
    assert!(memory.len() == 1 && others.iter().all(|line| ["max", "-1"].contains(line)), "{lifted}");
}

/// What the kernel does to a group without memory must not reach the process that tells how the command ended.
#[test]
fn the_keeper_stays_out_of_the_limited_groups() {
    let Some(bench) = Bench::new() else { return };
    if runner::CgroupSupport::detect().memory.is_none() {
        skip("probe cgroup: no memory controller");
        return;
    }
    let mut spec = bench.spec("echo up; sleep 60");
    spec.limits.memory = Some(32 << 20);
    let (handle, _reader, _) = start(&bench, &spec);
    let limited = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        text.lines().any(|line| line.contains("memory") && line.contains("/rbuild-"))
            || text.lines().any(|line| line.starts_with("0::") && line.contains("/rbuild-"))
    };
    let keepers = children(launcher_pid(&bench));
    assert_eq!(keepers.iter().filter(|pid| limited(**pid)).count(), 0);
    let inside: Vec<i32> = keepers.iter().flat_map(|pid| children(*pid)).collect();
    assert!(inside.len() == 2 && inside.iter().all(|pid| limited(*pid)), "cradle and sandbox: {inside:?}");
    handle.kill();
    handle.wait().unwrap();
}

#[test]
fn a_dead_cradle_is_replaced() {
    let Some(bench) = Bench::new() else { return };
    let one = || {
        let mut spec = bench.spec("echo one");
        spec.limits.pids = bench_has_pids().then_some(50);
        assert_eq!(bench.run_spec(&spec).text(), "one\n");
    };
    one();
    let cradles = || -> Vec<i32> { children(launcher_pid(&bench)).into_iter().flat_map(children).collect() };
    let before = cradles();
    assert_eq!(before.len(), 1);
    kill(before[0]);
    one();
    assert_ne!(cradles(), before);
}

#[test]
fn limits_show_inside_and_rlimits_hold() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec("ulimit -n; ulimit -Hn; ulimit -c");
    let limit =
        |name: &str, soft, hard| runner::Rlimit { name: name.to_owned(), soft: Some(soft), hard: Some(hard) };
    spec.rlimits = vec![limit("nofile", 100, 200), limit("RLIMIT_CORE", 0, 0)];
    assert_eq!(bench.run_spec(&spec).text(), "100\n200\n0\n");
    let mut spec = bench.spec("true");
    spec.rlimits = vec![limit("nonsense", 1, 1)];
    let error = bench.run_spec(&spec).outcome.unwrap_err().to_string();
    assert_eq!(error, "invalid sandbox request: unknown resource limit `nonsense`");
}

#[test]
fn the_badness_is_raised() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec("cat /proc/self/oom_score_adj");
    spec.oom_score_adj = Some(700);
    assert_eq!(bench.run_spec(&spec).text(), "700\n");
    // The keeper's own protection is not inherited.
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(bench.run("cat /proc/self/oom_score_adj").text(), own);
}

#[test]
fn a_secret_is_not_shown_by_debug() {
    let source = runner::MountSource::Secret { data: b"canary".to_vec(), uid: 0, gid: 0, mode: 0o400 };
    let shown = format!("{source:?}");
    assert!(!shown.contains("canary") && !shown.contains("99, 97, 110"), "{shown}");
}

#[test]
fn a_terminal_of_its_own() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec("tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; test -c /dev/console && echo console; read x; echo got $x; exit 5");
    spec.tty = Some(runner::TerminalSize { rows: 7, columns: 33 });
    let handle = bench.launcher.spawn(&spec, Stdio::default()).unwrap();
    let mut master = fs::File::from(handle.terminal().unwrap());
    std::io::Write::write_all(&mut master, b"word\n").unwrap();
    let mut output = Vec::new();
    // EIO when the last process has closed the other side.
    let _eio = master.read_to_end(&mut output);
    let text = String::from_utf8_lossy(&output).replace('\r', "");
    assert_eq!(handle.wait().unwrap().status.code(), 5);
    for part in ["/dev/pts/0\n", "7 33\n", "all\n", "console\n", "got word\n"] {
        assert!(text.contains(part), "{part:?} in {text:?}");
    }
}

#[test]
fn many_at_once_and_nothing_is_left() {
    let id = format!("m{}", std::process::id() % 1_000_000);
    let Some(bench) = Bench::with_id(&id) else { return };
    let mounts_before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let bench = &bench;
            scope.spawn(move || {
                let mut spec = bench.spec(&format!("sleep 0.1; echo {n}"));
                spec.limits.pids = bench_has_pids().then_some(100);
                assert_eq!(bench.run_spec(&spec).text(), format!("{n}\n"));
            });
        }
    });
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts_before);
    let launcher = launcher_pid(&bench);
    let keepers = children(launcher);
    assert!(!keepers.is_empty() && keepers.len() <= 16);
    let Bench { launcher: ours, dir, .. } = bench;
    drop(ours);
    for pid in keepers.into_iter().chain([launcher]) {
        eventually("the process is gone", || !Path::new(&format!("/proc/{pid}/cmdline")).exists());
    }
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let mut pending = vec![controller.path()];
        while let Some(dir) = pending.pop() {
            assert!(!dir.ends_with(format!("rbuild-{id}")), "{} is left", dir.display());
            pending.extend(
                fs::read_dir(&dir)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|e| e.path())
                    .filter(|p| p.is_dir() && !p.is_symlink()),
            );
        }
    }
    drop(dir);
}

fn bench_has_pids() -> bool {
    runner::CgroupSupport::detect().pids.is_some()
}

pub(crate) fn launcher_pid(bench: &Bench) -> i32 {
    let fd = std::os::fd::AsRawFd::as_raw_fd(&bench.launcher.death());
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().parse().unwrap()
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

pub(crate) fn kill(pid: i32) {
    assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}
