//! `rbuild run`: containers that outlive their daemon, how they end, and what they leave.

use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::{Daemon, Scene, output, program, ready};

/// A client whose container talks line by line.
struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    /// `rbuild run -i ARGS`.
    fn start(scene: &Scene, args: &[&str]) -> Self {
        Self::of(&mut scene.command(&[&["run", "-i"], args].concat()))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads up to a line.
    fn until(&mut self, wanted: &str) {
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "`{wanted}` never came");
            if line.trim_end().ends_with(wanted) {
                return;
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.stdin.write_all(text.as_bytes()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Its exit code and what it had to say.
    fn end(self) -> (i32, String) {
        let Self { child, stdin, stdout } = self;
        drop(stdin);
        let out = child.wait_with_output().unwrap();
        drop(stdout);
        let code = out.status.code().expect("it ends by itself");
        (code, String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ids of containers that have files.
fn containers(daemon: &Daemon) -> Vec<String> {
    let entries = fs_err::read_dir(daemon.root().join("containers")).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().into_string().unwrap()).collect()
}

/// Processes of this name that hold something of the daemon's directory open.
fn processes(name: &str, daemon: &Daemon) -> Vec<i32> {
    let ours = |pid: &i32| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let command = fs_err::read(proc.join("cmdline")).unwrap_or_default();
        let called = fs_err::read_to_string(proc.join("comm")).unwrap_or_default();
        called.trim_end() == name && String::from_utf8_lossy(&command).contains(&daemon.id())
    };
    let entries = fs_err::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(ours).collect()
}

const TALK: &str = "echo one; read x; echo two $x; read x; echo three >&2; exit 3";

#[test]
fn a_killed_daemon_is_not_missed() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let mut client = Client::start(&scene, &["base", "sh", "-c", TALK]);
    assert_eq!(client.line(), "one");
    scene.daemon.kill();
    client.say("a\n");
    assert_eq!(client.line(), "two a");
    client.say("b\n");
    assert_eq!(client.end(), (3, "three\n".to_owned()));
    assert_eq!(containers(&scene.daemon).len(), 1, "nobody was there to clean up");
    scene.daemon.again();
    eventually("the next daemon cleans up", || containers(&scene.daemon).is_empty());
}

#[test]
fn the_next_daemon_takes_containers_up() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let script = "echo one; read x; cat /etc/group | head -1; read x; exit 3";
    let mut client = Client::start(&scene, &["--name", "c", "base", "sh", "-c", script]);
    assert_eq!(client.line(), "one");
    // Told to leave, it leaves at once: the container does not need it.
    scene.daemon.stop();
    scene.daemon.again();
    let same_name = scene.run(&["run", "--name", "c", "base", "true"]);
    assert_eq!(same_name.code, 125, "{same_name:?}");
    assert!(same_name.stderr.contains("`c`"), "{}", same_name.stderr);
    // Nothing but the container holds its image now.
    scene.run(&["rmi", "base"]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    client.say("\n");
    assert_eq!(client.line(), "root:x:0:");
    client.say("\n");
    assert_eq!(client.end().0, 3);
    eventually("its files go", || containers(&scene.daemon).is_empty());
    scene.run(&["prune", "--all", "--force"]).ok();
    let snapshots = || fs_err::read_dir(scene.daemon.root().join("snapshots")).unwrap().count();
    eventually("its layers go", || snapshots() == 0);
}

#[test]
fn a_killed_monitor_takes_its_container_along() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let mut client = Client::start(&scene, &["base", "sh", "-c", "echo one; sleep 1000"]);
    assert_eq!(client.line(), "one");
    let monitors = processes("rbuild-monitor", &scene.daemon);
    assert_eq!(monitors.len(), 1);
    kill(Pid::from_raw(monitors[0]), Signal::SIGKILL).unwrap();
    let (code, said) = client.end();
    assert_eq!(code, 125, "{said}");
    eventually("its files go", || containers(&scene.daemon).is_empty());
    scene.run(&["run", "base", "true"]).ok();
}

/// Whoever reaches a port gets no files of the machine, and its network only where builds may have it.
#[test]
fn clients_from_afar_get_nothing_of_the_machine() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let far = scene.daemon.listen_tcp();
    scene.daemon.stop();
    scene.daemon.again();
    let run = |args: &[&str]| {
        let all = [&["--addr", &far, "run", "--rm"], args, &["base", "ls", "/h"]].concat();
        output(Command::new(program()).args(all).stdin(Stdio::null()))
    };
    let host = scene.path("host");
    fs_err::create_dir(&host).unwrap();
    let refused = run(&["-v", &format!("{}:/h", host.display())]);
    assert_eq!(refused.code, 125, "{}", refused.stderr);
    assert!(refused.stderr.contains("are for clients on it"), "{}", refused.stderr);
    let refused = run(&["--network", "host"]);
    assert_eq!(refused.code, 125, "{}", refused.stderr);
    assert!(refused.stderr.contains("network.host is not allowed"), "{}", refused.stderr);
    run(&["-v", "named:/h"]).ok();
}

#[test]
fn a_container_ends_with_its_client() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    for daemon_lives in [true, false] {
        let mut client = Client::start(&scene, &["base", "sh", "-c", "echo one; sleep 1000"]);
        assert_eq!(client.line(), "one");
        if !daemon_lives {
            scene.daemon.kill();
        }
        client.signal(Signal::SIGKILL);
        client.child.wait().unwrap();
        eventually("the monitor ends", || processes("rbuild-monitor", &scene.daemon).is_empty());
        if !daemon_lives {
            scene.daemon.again();
        }
        eventually("its files go", || containers(&scene.daemon).is_empty());
    }
}

/// As for a client on another host: without the side socket the daemon relays, and the container is its own.
#[test]
fn a_relayed_container_ends_with_its_daemon() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    fs_err::remove_file(scene.daemon.dir().join("sock.fd")).unwrap();
    let mut client = Client::start(&scene, &["base", "sh", "-c", TALK]);
    assert_eq!(client.line(), "one");
    client.say("a\n");
    assert_eq!(client.line(), "two a");
    client.say("b\n");
    assert_eq!(client.end(), (3, "three\n".to_owned()));
    assert_eq!(scene.run(&["run", "base", "/not/there"]).code, 127);
    let mut client = Client::start(&scene, &["base", "sh", "-c", TALK]);
    assert_eq!(client.line(), "one");
    scene.daemon.kill();
    let (code, said) = client.end();
    assert_eq!(code, 125, "{said}");
    scene.daemon.again();
    eventually("its files go", || containers(&scene.daemon).is_empty());
}

/// A daemon that leaves when idle stays as long as it has a container to clean up after.
#[test]
fn a_container_keeps_the_daemon_from_being_idle() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    scene.daemon.stop();
    let root = scene.daemon.root();
    let mut daemon = Command::new(program())
        .args(["daemon", "--idle-timeout", "1s", "--addr", &scene.daemon.addr(), "--root"])
        .arg(&root)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = scene.daemon.dir().join("sock");
    eventually("it serves", || socket.exists());
    let mut client = Client::start(&scene, &["base", "sh", "-c", TALK]);
    assert_eq!(client.line(), "one");
    std::thread::sleep(Duration::from_secs(4));
    assert!(daemon.try_wait().unwrap().is_none(), "it left");
    client.say("\n\n");
    assert_eq!(client.end().0, 3);
    assert!(daemon.wait().unwrap().success());
    assert_eq!(containers(&scene.daemon), [""; 0]);
}

#[test]
fn exit_codes() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let nowhere = "127.0.0.1:1/none";
    for (code, args) in [
        (0, &["base", "true"][..]),
        (7, &["base", "sh", "-c", "exit 7"]),
        (255, &["base", "sh", "-c", "exit 255"]),
        (137, &["base", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]),
        (143, &["base", "sh", "-c", "sh -c 'kill -15 $$'; exit $?"]),
        (127, &["base", "/not/there"]),
        (127, &["base", "notthere"]),
        (126, &["base", "/etc/passwd"]),
        (126, &["base", "/etc"]),
        (126, &["base", "/etc/passwd/x"]),
        (125, &["-w", "/etc/passwd", "base", "true"]),
        (125, &["-u", "nobody-there", "base", "true"]),
        (125, &["-v", "x", "base", "true"]),
        (125, &["-v", "x:/y", "-v", "z:/y", "base", "true"]),
        (125, &["-v", "/proc/none:/y", "base", "true"]),
        (125, &["-v", "a/b:/x", "base", "true"]),
        (125, &["-w", "relative", "base", "true"]),
        (125, &["-e", "=x", "base", "true"]),
        (125, &["--name", "a/b", "base", "true"]),
        (125, &["--network", "bogus", "base", "true"]),
        (125, &["--nonsense", "base", "true"]),
        (125, &["-it", "base", "true"]),
        (125, &[nowhere, "true"]),
        (125, &["not a name", "true"]),
        (125, &[]),
    ] {
        let out = scene.run(&[&["run", "--rm"], args].concat());
        assert_eq!(out.code, code, "{args:?}: {out:?}");
        assert!(!(125..=127).contains(&code) || !out.stderr.is_empty(), "{args:?} says nothing");
        assert!(!out.stderr.contains("panicked"), "{args:?}: {}", out.stderr);
    }
    let absent = format!("unix://{}", scene.path("absent").display());
    assert_eq!(output(Command::new(program()).args(["--addr", &absent, "run", "base"])).code, 125);
    assert_eq!(output(Command::new(program()).args(["run", "--help"])).code, 0);
    assert_eq!(containers(&scene.daemon), [""; 0]);
}

/// Who reads no further ends the container, without a word; who only does not read does not keep signals from it.
#[test]
fn output_that_nobody_reads() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let mut client = Client::start(&scene, &["base", "yes"]);
    assert_eq!(client.line(), "y");
    let Client { child, stdout, .. } = client;
    drop(stdout);
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), out.stderr.as_slice()), (Some(141), &b""[..]));

    let script = "trap 'exit 42' TERM; echo one; yes & wait";
    let mut client = Client::start(&scene, &["base", "sh", "-c", script]);
    assert_eq!(client.line(), "one");
    std::thread::sleep(Duration::from_millis(500));
    client.signal(Signal::SIGTERM);
    eventually("the monitor ends", || processes("rbuild-monitor", &scene.daemon).is_empty());
    std::io::copy(&mut client.stdout, &mut std::io::sink()).unwrap();
    assert_eq!(client.end().0, 42);
}

#[test]
fn signals_reach_the_command() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let script = "trap 'exit 42' INT; trap 'exit 43' TERM; trap 'exit 44' HUP; trap 'exit 45' USR1; \
                  echo one; while :; do sleep 0.05; done";
    for (signal, code) in
        [(Signal::SIGINT, 42), (Signal::SIGTERM, 43), (Signal::SIGHUP, 44), (Signal::SIGUSR1, 45)]
    {
        let mut client = Client::start(&scene, &["base", "sh", "-c", script]);
        assert_eq!(client.line(), "one");
        client.signal(signal);
        assert_eq!(client.end().0, code, "{signal}");
    }
}

#[test]
fn signals_do_not_wait_behind_stdin_that_nobody_reads() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let script = "trap 'exit 42' TERM; echo one; while :; do sleep 0.05; done";
    let zeros = fs_err::File::open("/dev/zero").unwrap().into_parts().0;
    let mut command = scene.command(&["run", "-i", "base", "sh", "-c", script]);
    let mut client = command.stdin(zeros).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    // By now all that holds stdin on its way is full.
    std::thread::sleep(Duration::from_millis(500));
    kill(Pid::from_raw(client.id() as i32), Signal::SIGTERM).unwrap();
    let begun = Instant::now();
    let status = loop {
        match client.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() < Duration::from_secs(20) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            None => {
                client.kill().unwrap();
                client.wait().unwrap();
                panic!("the signal does not arrive");
            }
        }
    };
    assert_eq!(status.code(), Some(42));
}

/// Runs a shell script on a terminal of its own.
fn on_terminal(scene: &Scene, script: &str) -> Client {
    let file = scene.path("script");
    fs_err::write(&file, script).unwrap();
    let run = format!("sh {}", file.display());
    let mut command = Command::new("script");
    command.args(["-qec", &run, "/dev/null"]).current_dir(scene.context());
    Client::of(&mut command)
}

/// A script that runs `rbuild run -it base sh -c SCRIPT` on a terminal and tells how that ended and whether keys are as before.
fn interactive(scene: &Scene, container: &str) -> String {
    format!(
        "stty rows 33 cols 99; tty > {tty}\n\
         sh -c 'echo $$ > {pid}; exec \"$@\"' - {rbuild} --addr {addr} run -it --name t base sh -c '{container}'\n\
         echo code $?; stty -a | grep -q ' icanon' && stty -a | grep -q ' echo ' && echo restored\n",
        tty = scene.path("tty").display(),
        pid = scene.path("pid").display(),
        rbuild = program().display(),
        addr = scene.daemon.addr(),
    )
}

#[test]
fn terminals() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = |name: &str| fs_err::read_to_string(scene.path(name)).unwrap().trim().to_owned();

    let resized = "stty size; until [ \"$(stty size)\" = \"40 120\" ]; do sleep 0.05; done; \
                   echo resized; read x; echo got $x; exit 3";
    let mut client = on_terminal(&scene, &interactive(&scene, resized));
    client.until("33 99");
    output(Command::new("stty").args(["-F", &text("tty"), "rows", "40", "cols", "120"])).ok();
    client.until("resized");
    client.say("word\r");
    client.until("got word");
    client.until("code 3");
    client.until("restored");

    let keys = "trap \"echo interrupted; exit 4\" INT; echo up; while :; do sleep 0.05; done";
    let mut client = on_terminal(&scene, &interactive(&scene, keys));
    client.until("up");
    client.say("\x03");
    client.until("interrupted");
    client.until("code 4");
    client.until("restored");

    let told = "trap \"exit 5\" TERM; echo up; while :; do sleep 0.05; done";
    let mut client = on_terminal(&scene, &interactive(&scene, told));
    client.until("up");
    kill(Pid::from_raw(text("pid").parse().unwrap()), Signal::SIGTERM).unwrap();
    client.until("code 5");
    client.until("restored");

    let mut client = on_terminal(&scene, &interactive(&scene, "cd /not/there 2>/dev/null; exec /not/there"));
    client.until("code 127");
    client.until("restored");
}

/// Nobody can reach a container whose terminal was closed.
#[test]
fn a_closed_terminal_ends_the_container() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let deaf = "trap \"\" HUP; echo up; while :; do sleep 0.05; done";
    let mut client = on_terminal(&scene, &interactive(&scene, deaf));
    client.until("up");
    client.signal(Signal::SIGKILL);
    client.child.wait().unwrap();
    eventually("the container ends", || containers(&scene.daemon).is_empty());
}

#[test]
fn a_terminal_survives_the_daemon() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let mut client = on_terminal(&scene, &interactive(&scene, "echo up; read x; echo got $x; exit 6"));
    client.until("up");
    scene.daemon.kill();
    client.say("word\r");
    client.until("got word");
    client.until("code 6");
    client.until("restored");
    scene.daemon.again();
    eventually("its files go", || containers(&scene.daemon).is_empty());
}

/// As those who know `docker run` expect.
#[test]
fn options() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = "FROM base\nENV A=image B=image\nENTRYPOINT [\"echo\"]\nCMD [\"cmd\"]\n";
    scene.dockerfile(text, &["-t", "x"]).ok();
    let said = |args: &[&str]| {
        let mut command = scene.command(&[&["run", "--rm"], args].concat());
        output(command.env("GIVEN", "from outside").env_remove("B")).ok().stdout
    };
    assert_eq!(said(&["x"]), "cmd\n");
    // Whatever follows the image is the command's.
    assert_eq!(said(&["x", "--help"]), "--help\n");
    assert_eq!(said(&["x", "-v", "--rm", "-h"]), "-v --rm -h\n");
    assert_eq!(said(&["--entrypoint", "sh", "x", "-c", "echo $0"]), "sh\n");
    let variables = ["-e", "A=given", "-e", "GIVEN", "-e", "B", "--entrypoint=", "x", "env"];
    let environment = said(&variables);
    let lines: Vec<&str> = environment.lines().filter(|l| !l.starts_with("HOSTNAME=")).collect();
    assert_eq!(
        lines,
        [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "A=given",
            "GIVEN=from outside",
            "HOME=/root"
        ]
    );
    assert_eq!(said(&["--network", "bridge", "base", "ls", "/sys/class/net"]), "eth0\nlo\n");
    assert_eq!(said(&["--net=none", "base", "ls", "/sys/class/net"]), "lo\n");
    assert_eq!(said(&["-w", "/new/dir", "base", "pwd"]), "/new/dir\n");
    let help = output(Command::new(program()).args(["run", "--help"])).ok().stdout;
    assert!(help.contains("IMAGE [COMMAND]...") && help.contains("125"), "{help}");
}

#[test]
fn volumes() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = "FROM base\nRUN --network=none mkdir /d && echo image > /d/f && chown -R 1000:1000 /d && chmod 700 /d\n";
    scene.dockerfile(text, &["-t", "x"]).ok();
    let run = |args: &[&str]| scene.run(&[&["run", "--rm"], args].concat());
    // A new volume begins as the directory of the image that it covers, owner and mode included.
    for volume in ["kept:/d", "/d"] {
        let out = run(&[
            "-v",
            volume,
            "-u",
            "1000",
            "x",
            "sh",
            "-c",
            "stat -c '%u %a' /d; echo more >> /d/f; cat /d/f",
        ]);
        assert_eq!(out.ok().stdout, "1000 700\nimage\nmore\n", "{volume}");
    }
    assert_eq!(run(&["-v", "kept:/e:ro,z", "x", "cat", "/e/f"]).ok().stdout, "image\nmore\n");
    assert_eq!(run(&["-v", "kept:/e:ro", "x", "touch", "/e/f"]).code, 1);
    assert_eq!(run(&["x", "cat", "/d/f"]).ok().stdout, "image\n");
    // A missing path is made, as docker does; a relative one is the client's.
    run(&["-v", "./made/here:/v", "x", "touch", "/v/f"]).ok();
    assert!(scene.context().join("made/here/f").exists());
    fs_err::write(scene.context().join("file"), "a file\n").unwrap();
    assert_eq!(run(&["-v", "./file:/etc/deep/f", "x", "cat", "/etc/deep/f"]).ok().stdout, "a file\n");
    let hint = run(&["-v", "made/here:/v", "x", "true"]);
    assert!(hint.stderr.contains("`./`"), "{}", hint.stderr);
    assert_eq!(containers(&scene.daemon), [""; 0]);
}

/// What is written to stdout and stderr in turn arrives in turn where both lead to the same place.
#[test]
fn the_order_of_output() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let script = "i=0; while [ $i -lt 400 ]; do echo $i; i=$((i+1)); echo $i >&2; i=$((i+1)); done";
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = scene.command(&["run", "base", "sh", "-c", script]);
    let mut child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
    drop(command);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(text, (0..400).map(|n| format!("{n}\n")).collect::<String>());
    let apart = scene.run(&["run", "base", "sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((apart.stdout.as_str(), apart.stderr.as_str()), ("out\n", "err\n"));
}
