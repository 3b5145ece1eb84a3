//! More processes in a sandbox that runs.

use std::io::{Read, Write};

use runner::{ExitStatus, ProcessSpec, RunnerError, SandboxHandle, SandboxSpec, Stdio, TerminalSize, User};

use crate::support::Bench;

/// A sandbox whose first process does as told on its stdin.
struct Running {
    handle: SandboxHandle,
    /// Closed, it ends.
    stdin: std::io::PipeWriter,
}

impl Running {
    fn new(bench: &Bench) -> Self {
        let running = Self::of(
            bench,
            &bench.spec("mkdir /made; echo first > /made/f.new; mv /made/f.new /made/f; exec sh -s"),
        );
        while running.join(&script("test -e /made/f")).0 != OK {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        running
    }

    fn of(bench: &Bench, spec: &SandboxSpec) -> Self {
        let (reader, stdin) = std::io::pipe().unwrap();
        let stdio = Stdio { stdin: Some(reader.into()), ..Stdio::default() };
        let handle = bench.launcher.spawn(spec, stdio).unwrap();
        assert!(handle.started());
        Self { handle, stdin }
    }

    /// Runs a script beside it; gives its end and output.
    fn join(&self, process: &ProcessSpec) -> (Result<ExitStatus, RunnerError>, String) {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let stderr = writer.try_clone().unwrap().into();
        let stdio = Stdio { stdin: None, stdout: Some(writer.into()), stderr: Some(stderr) };
        let handle = self.handle.join(process, &stdio).unwrap();
        drop(stdio);
        let mut output = String::new();
        reader.read_to_string(&mut output).unwrap();
        (handle.wait().map(|exit| exit.status), output)
    }
}

fn script(text: &str) -> ProcessSpec {
    ProcessSpec {
        args: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
        env: vec![format!("PATH={}", runner::DEFAULT_PATH), "WHO=joined".to_owned()],
        cwd: "/".into(),
        user: User::default(),
        tty: None,
    }
}

const OK: Result<ExitStatus, RunnerError> = Ok(ExitStatus::Code(0));

#[test]
fn they_see_what_the_first_one_sees() {
    let Some(bench) = Bench::new() else { return };
    let running = Running::new(&bench);
    let seen = running.join(&ProcessSpec {
        cwd: "/made".into(),
        ..script("pwd; cat f; echo $WHO; hostname; ls /proc | grep -c '^1$'; echo second > g")
    });
    assert_eq!(seen, (OK, "/made\nfirst\njoined\nbuildkitsandbox\n1\n".to_owned()));
    assert_eq!(
        running.join(&script("cat /made/g; exit 7")),
        (Ok(ExitStatus::Code(7)), "second\n".to_owned())
    );
    let user = User { uid: 1000, gid: 1000, groups: vec![2000] };
    assert_eq!(running.join(&ProcessSpec { user, ..script("id -u; id -G") }).1, "1000\n1000 2000\n");
    drop(running.stdin);
    assert_eq!(running.handle.wait().unwrap().status, ExitStatus::Code(0));
    let late = running.handle.join(&script("true"), &Stdio::default());
    assert_eq!(late.and_then(|handle| handle.wait()).unwrap_err(), RunnerError::KeeperGone);
}

#[test]
fn they_may_do_no_more_than_the_first_one() {
    let Some(bench) = Bench::new() else { return };
    let running = Running::new(&bench);
    let (end, same) = running.join(&script(
        "grep -E '^(CapEff|Seccomp:)' /proc/self/status; \
         for n in ipc mnt net pid uts cgroup; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n; done; \
         cmp /proc/self/cgroup /proc/1/cgroup; for p in 1 self; do grep Cap /proc/$p/status > /tmp/$p; done; cmp /tmp/1 /tmp/self; \
         for fd in $(seq 0 99); do [ -L /proc/$$/fd/$fd ] && echo $fd; done; ls /work /root/.cargo /proc/1/root/work 2>/dev/null; true",
    ));
    assert_eq!(end, OK);
    assert_eq!(same, "CapEff:\t00000000a80425fb\nSeccomp:\t2\n0\n1\n2\n");
    // What the process holds before it is the command is nothing that the sandbox gets at.
    let spy = Running::new(&bench);
    let found = "while ! [ -e /tmp/stop ]; do for p in /proc/[0-9]*; do [ $p = /proc/$$ ] || [ $p = /proc/1 ] || \
        readlink $p/exe $p/fd/* 2>/dev/null; done; done > /tmp/seen; true";
    let watching = spy.handle.join(&script(found), &Stdio::default()).unwrap();
    for _ in 0..20 {
        assert_eq!(spy.join(&script("true")).0, OK);
    }
    assert_eq!(spy.join(&script("touch /tmp/stop")).0, OK);
    assert_eq!(watching.wait().unwrap().status, ExitStatus::Code(0));
    let seen = spy
        .join(&script("grep -v -e /bin/busybox -e /dev/null -e pipe: -e '^/proc' -e /tmp/seen /tmp/seen"))
        .1;
    assert_eq!(seen, "");
}

#[test]
fn ends_of_all_sorts() {
    let Some(bench) = Bench::new() else { return };
    let mut running = Running::new(&bench);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let stdio = Stdio { stdout: Some(writer.into()), ..Stdio::default() };
    let waiting = "trap 'exit 9' TERM; echo up; while true; do sleep 0.05; done";
    let handle = running.handle.join(&script(waiting), &stdio).unwrap();
    drop(stdio);
    reader.read_exact(&mut [0; 3]).unwrap();
    handle.signal(15);
    assert_eq!(handle.wait().unwrap().status, ExitStatus::Code(9));
    // Dropped, it is killed; the others go on.
    let gone =
        running.handle.join(&script("echo $$ > /tmp/pid; exec sleep 1000"), &Stdio::default()).unwrap();
    assert!(gone.started());
    drop(gone);
    assert_eq!(running.join(&script("while kill -0 $(cat /tmp/pid) 2>/dev/null; do sleep 0.05; done")).0, OK);
    let missing = ProcessSpec { args: vec!["nope".to_owned()], ..script("") };
    assert_eq!(running.join(&missing).0, Err(RunnerError::ProgramNotFound { program: "nope".to_owned() }));
    let nowhere = ProcessSpec { cwd: "/nope".into(), ..script("true") };
    assert!(matches!(running.join(&nowhere).0, Err(RunnerError::WorkingDirectory { .. })));
    // The first one takes the others along.
    let other = running.handle.join(&script("exec sleep 1000"), &Stdio::default()).unwrap();
    assert!(other.started());
    running.stdin.write_all(b"exit 5\n").unwrap();
    assert_eq!(running.handle.wait().unwrap().status, ExitStatus::Code(5));
    assert_eq!(other.wait().unwrap().status, ExitStatus::Signal(9));
    assert_eq!(bench.run("echo next").text(), "next\n", "the keeper goes on");
}

#[test]
fn a_terminal_of_its_own() {
    let Some(bench) = Bench::new() else { return };
    let running = Running::new(&bench);
    let tty = Some(TerminalSize { rows: 7, columns: 33 });
    let handle =
        running.handle.join(&ProcessSpec { tty, ..script("tty; stty size") }, &Stdio::default()).unwrap();
    let mut master = std::fs::File::from(handle.terminal().unwrap());
    let mut output = Vec::new();
    // The master gives an error once nobody has the other end open.
    let _end = master.read_to_end(&mut output);
    assert_eq!(String::from_utf8_lossy(&output), "/dev/pts/0\r\n7 33\r\n");
    assert_eq!(handle.wait().unwrap().status, ExitStatus::Code(0));
}
