//! rbuild as an ordinary user: its own daemon, started when needed, in a user namespace.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tests::{Output, base, output, program, ready};

/// A user with subordinate ids, and a copy of rbuild in its home; gone when dropped, its daemon too.
struct Ordinary {
    name: String,
    home: PathBuf,
    uid: u32,
    gid: u32,
    /// A node that stands for /dev/net/tun, which is closed to users on some machines.
    tun: Option<PathBuf>,
}

impl Ordinary {
    fn new() -> Self {
        let name = format!("rbuild-test-{}", std::process::id());
        run(Command::new("useradd").args(["--create-home", "--shell", "/bin/sh", &name]));
        let user = User::from_name(&name).unwrap().expect("useradd made it");
        let made = Self { name, home: user.dir, uid: user.uid.as_raw(), gid: user.gid.as_raw(), tun: None };
        for (file, flag) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
            let has = fs_err::read_to_string(file).is_ok_and(|t| t.contains(&format!("{}:", made.name)));
            if !has {
                run(Command::new("usermod").args([flag, "700000000-700065535", &made.name]));
            }
        }
        fs_err::copy(program(), made.home.join("rbuild")).unwrap();
        made
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match &self.tun {
            None => {
                let mut command = Command::new(program);
                command.uid(self.uid).gid(self.gid);
                command
            }
            Some(tun) => {
                let script = "mount --bind \"$0\" /dev/net/tun && exec setpriv --reuid \"$1\" --regid \"$2\" --clear-groups \"${@:3}\"";
                let mut command = Command::new("unshare");
                command.args(["--mount", "bash", "-c", script]).arg(tun);
                command.args([self.uid.to_string(), self.gid.to_string()]).arg(program);
                command
            }
        };
        command
            .current_dir(&self.home)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", self.home.join("run"))
            .stdin(Stdio::null());
        command
    }

    fn rbuild(&self, args: &[&str]) -> Output {
        output(self.command(self.home.join("rbuild")).args(args))
    }

    fn build(&self, dockerfile: &str, args: &[&str]) -> Output {
        self.write("context/Dockerfile", dockerfile);
        let all: Vec<&str> =
            ["build", "--progress=plain"].iter().chain(args).chain(&["context"]).copied().collect();
        self.rbuild(&all)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.home.join(path);
        fs_err::write(&path, content).unwrap();
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).unwrap();
    }

    /// Processes of the user; dead ones that nobody has waited for do not count.
    fn processes(&self) -> Vec<i32> {
        let entries = fs_err::read_dir("/proc").unwrap().flatten();
        let lives = |status: &str| {
            let uid = format!("Uid:\t{}\t", self.uid);
            status.contains(&uid) && !status.contains("State:\tZ")
        };
        entries
            .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| fs_err::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| lives(&s)))
            .collect()
    }

    /// The pid of the daemon that `rbuild` started.
    fn daemon(&self) -> Option<i32> {
        let told = self.rbuild(&["version", "--daemon"]).stdout;
        told.split_once("(pid ")?.1.split([',', ')']).next()?.parse().ok()
    }
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        // Only a failed test leaves some; userdel refuses as long as they live.
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let begun = Instant::now();
        while !self.processes().is_empty() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = output(Command::new("userdel").args(["--remove", &self.name]));
    }
}

fn run(command: &mut Command) {
    output(command).ok();
}

/// Whether users can be made here, and make user namespaces.
fn users_can() -> bool {
    for (tool, package) in [("useradd", "passwd"), ("newuidmap", "uidmap"), ("unshare", "util-linux")] {
        if Command::new(tool).arg("--help").output().is_err() {
            eprintln!("SKIPPED: needs {tool} (package {package})");
            return false;
        }
    }
    let probe = Command::new("unshare").args(["--user", "true"]).uid(65534).gid(65534).output();
    let can = probe.is_ok_and(|out| out.status.success());
    if !can {
        eprintln!("SKIPPED: needs user namespaces for ordinary users");
    }
    can
}

const DOCKERFILE: &str = "FROM scratch
COPY rootfs/ /
COPY --chown=1000:1000 data /data
RUN --network=none id -u && touch /mine && chown 33:44 /mine
RUN --network=none --mount=type=cache,target=/cache echo kept > /cache/f && stat -c 'ids %u:%g' /mine /data
USER 1000
CMD [\"sh\", \"-c\", \"id -u; stat -c %u:%g /mine\"]
";

#[test]
fn an_ordinary_user_builds_and_runs() {
    if !ready() || !users_can() {
        return;
    }
    let user = Ordinary::new();
    base::busybox(&user.home.join("context/rootfs"));
    fs_err::write(user.home.join("context/data"), "data").unwrap();

    let built = user.build(DOCKERFILE, &["-t", "app"]).ok();
    for line in [" 0\n", " ids 33:44\n", " ids 1000:1000\n"] {
        assert!(built.stderr.contains(line), "{line}: {}", built.stderr);
    }
    assert_eq!(user.build(DOCKERFILE, &["-t", "app"]).ok().ran(), [""; 0]);
    let ran = user.rbuild(&["run", "--rm", "--network=none", "app"]).ok();
    assert_eq!(ran.stdout, "1000\n33:44\n");
    networks(&user);
    private_files(&user);

    let root = user.home.join(".local/share/rbuild");
    assert_eq!(fs_err::metadata(&root).unwrap().uid(), user.uid);
    let pid = user.daemon().expect("it still serves");
    assert_eq!(fs_err::metadata(format!("/proc/{pid}")).unwrap().uid(), user.uid);

    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let begun = Instant::now();
    while !user.processes().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "left behind: {:?}", user.processes());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The isolated network takes root on the host, or a tun device; never is another one used instead.
fn networks(user: &Ordinary) {
    let refused = user.build("FROM app\nRUN true\n", &[]).fails();
    assert!(refused.stderr.contains("(hint: --network=host or --network=none)"), "{}", refused.stderr);
    user.build("FROM app\nRUN true\n", &["--network=none"]).ok();
    let host = "FROM app\nRUN --network=host ls /sys/class/net\n";
    let refused = user.build(host, &[]).fails();
    assert!(refused.stderr.contains("network.host is not allowed"), "{}", refused.stderr);
    user.build(host, &["--allow", "network.host"]).ok();
}

#[test]
fn an_ordinary_user_has_an_isolated_network_through_pasta() {
    if !ready() || !users_can() {
        return;
    }
    let mut user = Ordinary::new();
    let tun = user.home.join("tun");
    let node = Command::new("mknod").args(["-m", "666"]).arg(&tun).args(["c", "10", "200"]).output().unwrap();
    if Command::new("pasta").arg("--version").output().is_err() || !node.status.success() {
        eprintln!("SKIPPED: needs pasta (package passt) and leave to make a device");
        return;
    }
    user.tun = Some(tun);
    base::busybox(&user.home.join("context/rootfs"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let dockerfile = format!(
        "FROM scratch\nCOPY rootfs/ /\n\
         RUN ls /sys/class/net && ip route && wget -q -O /dev/null http://deb.debian.org/debian/dists/stable/Release && echo got it\n\
         RUN ! nc -w 2 127.0.0.1 {port} </dev/null && echo no way to the host\n\
         RUN --network=none ls /sys/class/net\n"
    );
    let built = user.build(&dockerfile, &["-t", "net"]).ok();
    for line in [" eth0\n", " default via ", " got it\n", " no way to the host\n"] {
        assert!(built.stderr.contains(line), "{line}: {}", built.stderr);
    }
    let ran = user.rbuild(&["run", "--rm", "net", "ip", "route"]).ok();
    assert!(ran.stdout.contains("default via "), "{}", ran.stdout);
    let pid = user.daemon().expect("it still serves");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let begun = Instant::now();
    while !user.processes().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "left behind: {:?}", user.processes());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What the user cannot read, the daemon does not read either.
fn private_files(user: &Ordinary) {
    let secret: &Path = &user.home.join("context/secret");
    fs_err::write(secret, "root's own").unwrap();
    fs_err::set_permissions(secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let refused = user.build("FROM scratch\nCOPY secret /\n", &[]).fails();
    assert!(refused.stderr.to_lowercase().contains("permission denied"), "{}", refused.stderr);
    fs_err::remove_file(secret).unwrap();
}
