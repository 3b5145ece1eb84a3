//! A daemon on a root of its own, and its command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};

/// A running daemon; told to leave when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    dir: PathBuf,
    config: String,
    environment: BTreeMap<&'static str, String>,
    /// Where else it listens.
    tcp: Option<std::net::SocketAddr>,
}

/// What a command gave.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit status; 128 and more for signals.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The output, if the command succeeded.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The output, if the command failed with status 1 and did not panic.
    ///
    /// # Panics
    /// When it did anything else.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert_eq!(self.code, 1, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Names of the steps that came from the cache.
    pub fn cached(&self) -> Vec<String> {
        self.steps().into_iter().filter(|(_, cached)| *cached).map(|(name, _)| name).collect()
    }

    /// Names of the numbered steps that ran.
    pub fn ran(&self) -> Vec<String> {
        let numbered = |n: &str| n.starts_with('[') && !n.starts_with("[internal]") && !n.contains("] FROM ");
        self.steps()
            .into_iter()
            .filter(|(name, cached)| !*cached && numbered(name))
            .map(|(name, _)| name)
            .collect()
    }

    fn steps(&self) -> Vec<(String, bool)> {
        let mut names: Vec<(&str, &str, bool)> = Vec::new();
        for line in self.stderr.lines() {
            let Some((number, text)) = line.strip_prefix('#').and_then(|l| l.split_once(' ')) else {
                continue;
            };
            match names.iter_mut().find(|(n, _, _)| *n == number) {
                Some(step) => step.2 |= text == "CACHED",
                None => names.push((number, text, false)),
            }
        }
        names.into_iter().map(|(_, name, cached)| (name.to_owned(), cached)).collect()
    }
}

/// Makes the daemon mount layers in one way.
const MOUNTING: &str = "RBUILD_OVERLAY";

/// The file name of the suite that runs, `build-` and a hash. Daemons of the suite `copied` copy layers.
fn suite() -> Option<String> {
    Some(std::env::current_exe().ok()?.file_name()?.to_string_lossy().into_owned())
}

/// The program under test: `$RBUILD`, or the one that cargo built beside the tests.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(given) = std::env::var_os("RBUILD") {
            return given.into();
        }
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
        let program = profile.join("rbuild");
        if !program.exists() {
            let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
            let built = Command::new(cargo).args(["build", "--locked", "-p", "buildd"]).status();
            assert!(built.is_ok_and(|s| s.success()), "cannot build rbuild");
        }
        program
    })
}

impl Daemon {
    /// Starts a daemon in `dir`, with the text of a `buildd.toml`.
    ///
    /// # Panics
    /// When it does not serve within ten seconds.
    pub fn start(dir: &Path, config: &str) -> Self {
        let mut daemon = Self::new(dir, config);
        daemon.again();
        daemon
    }

    /// A daemon that does not run yet; [`Self::again`] starts it.
    pub fn new(dir: &Path, config: &str) -> Self {
        let mut environment = BTreeMap::new();
        if suite().is_some_and(|name| name.starts_with("copied-")) {
            environment.insert(MOUNTING, "copy".to_owned());
        }
        Self { child: None, dir: dir.to_owned(), config: config.to_owned(), environment, tcp: None }
    }

    /// What the next start takes for the id of this boot of the machine.
    pub fn set_boot_id(&mut self, id: &str) {
        self.environment.insert("RBUILD_BOOT_ID", id.to_owned());
    }

    /// How the next start mounts layers: `descriptors`, `names`, `classic`, or `copy`.
    pub fn set_mounting(&mut self, way: &str) {
        self.environment.insert(MOUNTING, way.to_owned());
    }

    /// A variable in the environment of the next start.
    pub fn set_environment(&mut self, name: &'static str, value: &str) {
        self.environment.insert(name, value.to_owned());
    }

    /// Lets it listen on a port of loopback as well, from its next start; gives the address.
    pub fn listen_tcp(&mut self) -> String {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let at = *self.tcp.insert(free.expect("a free port"));
        format!("tcp://{at}")
    }

    /// Starts the daemon again over the same root, after [`Self::kill`] or [`Self::stop`].
    pub fn again(&mut self) {
        fs_err::create_dir_all(&self.dir).expect("a directory");
        let config = self.dir.join("buildd.toml");
        fs_err::write(&config, &self.config).expect("a configuration");
        let log = fs_err::OpenOptions::new().create(true).append(true).open(self.log()).expect("a log");
        let child = Command::new(program())
            .arg("daemon")
            .arg("--root")
            .arg(self.root())
            .arg("--addr")
            .arg(self.addr())
            .args(self.tcp.map(|at| format!("--addr=tcp://{at}")))
            .arg("--config")
            .arg(config)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log.file().try_clone().expect("a descriptor"))
            .stderr(log.into_parts().0)
            .spawn()
            .expect("rbuild starts");
        self.child = Some(child);
        let begun = Instant::now();
        while !self.socket().exists() {
            let dead = self.child.as_mut().is_some_and(|c| c.try_wait().ok().flatten().is_some());
            let log = || fs_err::read_to_string(self.log()).unwrap_or_default();
            assert!(
                !dead && begun.elapsed() < Duration::from_secs(10),
                "the daemon does not serve:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it keeps everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its state is.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// What its processes, cgroups and links are told by.
    pub fn id(&self) -> String {
        hex::encode(Sha256::digest(self.root().as_os_str().as_encoded_bytes()))[..8].to_owned()
    }

    /// What it logged.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Its address, as `--addr` takes it.
    pub fn addr(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |c| c.id() as i32)
    }

    /// Whether it lives.
    pub fn alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| c.try_wait().ok().flatten().is_none())
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs_err::remove_file(self.socket());
    }

    /// Tells it to leave and waits until it has.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let _ = child.wait();
        }
    }

    /// A command of the client, to be run in `cwd`.
    pub fn command(&self, cwd: &Path, args: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        let mut command = Command::new(program());
        command.arg("--addr").arg(self.addr()).args(args).current_dir(cwd).stdin(Stdio::null());
        command
    }

    /// Runs a command of the client in `cwd`.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn run(&self, cwd: &Path, args: &[impl AsRef<std::ffi::OsStr>]) -> Output {
        output(&mut self.command(cwd, args))
    }

    /// `rbuild build --progress=plain ARGS .` in a context.
    pub fn build(&self, context: &Path, args: &[&str]) -> Output {
        let all: Vec<&str> =
            ["build", "--progress=plain"].into_iter().chain(args.iter().copied()).chain(["."]).collect();
        self.run(context, &all)
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started.
pub fn output(command: &mut Command) -> Output {
    let out = command.output().expect("the program starts");
    let code = out
        .status
        .code()
        .unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&out.status).unwrap_or(0));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { code, stdout: text(&out.stdout), stderr: text(&out.stderr) }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}
