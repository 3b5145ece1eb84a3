//! A daemon whose disk is full: a clear error, a daemon that lives, and a build that works once there is room.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tests::{Daemon, Disk, FileSystem, Output, Registry, base, output, program, ready};

/// Room for some copies of the base image, for the database, and for one of the images that are too large for two.
const SIZE: u64 = 160 << 20;
/// Makes a file that does not compress.
const FILL: &str = "RUN head -c 90000000 /dev/urandom > /filler\n";

/// A daemon with the image `base` on a small disk.
struct Small {
    daemon: Daemon,
    pid: i32,
    dir: TempDir,
    _disk: Disk,
}

impl Small {
    /// `None` where no disk can be made; says why.
    fn new() -> Option<Self> {
        if !ready() {
            return None;
        }
        let dir = TempDir::new().unwrap();
        let at = dir.path().join("small");
        let disk = Disk::with_size(FileSystem::Ext4, SIZE, &dir.path().join("disk"), &at);
        let disk = disk.inspect_err(|reason| eprintln!("SKIPPED: needs a disk in a file: {reason}")).ok()?;
        let daemon = Daemon::start(&at, "");
        let small = Self { pid: daemon.pid(), daemon, dir, _disk: disk };
        base::busybox(&small.context().join("root"));
        small.build("FROM scratch\nCOPY root /\n", &["-t", "base"]).ok();
        Some(small)
    }

    fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    fn build(&self, dockerfile: &str, args: &[&str]) -> Output {
        base::context(&self.context(), &[("Dockerfile", dockerfile)]);
        self.daemon.build(&self.context(), args)
    }

    /// Checks the error, and that the daemon goes on: at once if `at_once`, and after a prune.
    #[track_caller]
    fn check(&mut self, failed: Output, names: &[&str], at_once: bool) {
        let stderr = failed.fails().stderr;
        let error = stderr.split_once("ERROR: ").map_or(stderr.as_str(), |(_, error)| error);
        // What a step says itself is its output, and repeated below the error.
        assert!(error.to_lowercase().contains("no space left on device"), "{error}");
        for name in names {
            assert!(error.contains(name), "`{name}` is not named:\n{error}");
        }
        if at_once {
            self.build("FROM base\nRUN echo it goes on > /f\n", &["-t", "x"]).ok();
        }
        self.daemon.run(self.dir.path(), &["prune", "--all", "--force"]).ok();
        self.build("FROM base\nRUN echo it goes on > /g\nCOPY Dockerfile /d\n", &["-t", "x"]).ok();
        let out = self.daemon.run(self.dir.path(), &["run", "--rm", "x", "cat", "/g"]).ok();
        assert_eq!(out.stdout, "it goes on\n");
        assert!(self.daemon.alive() && self.daemon.pid() == self.pid, "the daemon is another");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs_err::read_to_string(self.daemon.log()).unwrap_or_default();
            eprintln!("--- the daemon's log ---\n{log}");
        }
    }
}

#[test]
fn a_step_fills_it() {
    let Some(mut small) = Small::new() else { return };
    let out = small.build("FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=300\n", &["-t", "y"]);
    assert!(out.stderr.contains("2 | >>> RUN dd"), "{}", out.stderr);
    small.check(out, &["/big", "exit code: 1"], true);
}

#[test]
fn a_copy_fills_it() {
    let Some(mut small) = Small::new() else { return };
    fs_err::File::create(small.context().join("big")).unwrap().set_len(300 << 20).unwrap();
    let out = small.build("FROM scratch\nCOPY big /there\nRUN x\n", &["-t", "y"]);
    assert!(out.stderr.contains("2 | >>> COPY big"), "{}", out.stderr);
    small.check(out, &["there"], true);
    fs_err::remove_file(small.context().join("big")).unwrap();
}

#[test]
fn a_pull_fills_it() {
    let Some(mut small) = Small::new() else { return };
    let elsewhere = TempDir::new().unwrap();
    let registry = Registry::start(elsewhere.path());
    let name = format!("{}/big:1", registry.host());
    let mut large = Daemon::start(&elsewhere.path().join("d"), "");
    let context = elsewhere.path().join("context");
    base::busybox(&context.join("root"));
    base::context(&context, &[("Dockerfile", &format!("FROM scratch\nCOPY root /\n{FILL}"))]);
    large.build(&context, &["-t", &name, "--push"]).ok();
    large.stop();
    let out = small.build(&format!("FROM {name}\nRUN true\n"), &["-t", "y"]);
    assert!(out.stderr.contains(&name), "{}", out.stderr);
    small.check(out, &["layer `sha256:"], true);
    let out = small.daemon.run(small.dir.path(), &["pull", &name]);
    small.check(out, &["layer `sha256:"], true);
}

#[test]
fn an_export_fills_it() {
    let Some(mut small) = Small::new() else { return };
    let text = format!("FROM base\n{FILL}");
    // The first time a layer goes straight into the file, which is on another disk.
    small.build(&text, &["-t", "y", "-o", "type=oci,dest=x.tar"]).ok();
    let out = small.build(&text, &["-t", "y", "-o", "type=oci,dest=y.tar"]);
    assert!(!small.context().join("y.tar").exists(), "a failed build leaves no file");
    small.check(out, &["cannot pack layer `"], false);
    // The client's own disk.
    let dest = small.daemon.dir().join("y.tar");
    let named = format!("cannot write into `{}`", small.daemon.dir().display());
    for (kind, names) in [("tar", vec![&*named]), ("docker", vec!["cannot pack layer `", &named])] {
        let out = small.build(&text, &["-o", &format!("type={kind},dest={}", dest.display())]);
        assert!(!dest.exists(), "a failed build leaves no file");
        small.check(out, &names, true);
    }
}

/// The daemon's log may lie on the full disk, too.
#[test]
fn a_log_that_cannot_be_written() {
    if !ready() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let (root, socket) = (dir.path().join("root"), dir.path().join("sock"));
    let addr = format!("unix://{}", socket.display());
    let full = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap().into_parts().0;
    let mut daemon = Command::new(program())
        .args(["daemon", "--debug", "--addr", &addr, "--root"])
        .arg(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(full)
        .spawn()
        .unwrap();
    while !socket.exists() {
        assert!(daemon.try_wait().unwrap().is_none(), "the daemon does not start");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    base::context(&dir.path().join("context"), &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let mut build = Command::new(program());
    build.args(["--addr", &addr, "build", "-t", "x", "."]).current_dir(dir.path().join("context"));
    output(&mut build).ok();
    kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM).unwrap();
    assert!(daemon.wait().unwrap().success());
}
