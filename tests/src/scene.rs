//! What most tests start from: a daemon, a build context, and a base image.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::daemon::{Daemon, Output, output};
use crate::{Auth, Bucket, Leaks, Registry, base};

/// A daemon with the image `base` (busybox) in its image store, and an empty context.
///
/// When dropped after a test that passed, it stops the daemon and checks that nothing is left behind.
#[derive(Debug)]
pub struct Scene {
    /// The daemon.
    pub daemon: Daemon,
    leaks: Leaks,
    dir: TempDir,
}

impl Scene {
    /// Starts a daemon with defaults.
    pub fn new() -> Self {
        Self::with("")
    }

    /// Starts a daemon with the text of a `buildd.toml`.
    ///
    /// # Panics
    /// When it does not start or cannot build the base image.
    pub fn with(config: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let daemon = Daemon::new(&dir.path().join("d"), config);
        Self::of(dir, daemon)
    }

    /// Starts a daemon that mounts layers in one way.
    pub fn mounting(way: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let mut daemon = Daemon::new(&dir.path().join("d"), "");
        daemon.set_mounting(way);
        Self::of(dir, daemon)
    }

    fn of(dir: TempDir, mut daemon: Daemon) -> Self {
        daemon.again();
        let leaks = Leaks::watch(&daemon);
        let scene = Self { daemon, leaks, dir };
        let context = scene.path("base");
        base::busybox(&context.join("root"));
        base::context(&context, &[("Dockerfile", "FROM scratch\nCOPY root /\n")]);
        scene.daemon.build(&context, &["-t", "base"]).ok();
        fs_err::create_dir(scene.context()).expect("a context");
        scene
    }

    /// A path in the scene's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a registry with data of its own.
    ///
    /// # Panics
    /// When it does not start.
    pub fn registry(&self, auth: Auth) -> Registry {
        let dir = self.path("r");
        fs_err::create_dir(&dir).expect("a directory for the registry");
        Registry::with(&dir, auth)
    }

    /// Starts an S3 server with objects of its own.
    ///
    /// # Panics
    /// When it does not start.
    pub fn bucket(&self) -> Bucket {
        Bucket::start(&self.path("s3"))
    }

    /// The build context.
    pub fn context(&self) -> PathBuf {
        self.path("context")
    }

    /// Writes a file of the context, directories included.
    pub fn write(&self, name: &str, text: &str) -> &Self {
        base::context(&self.context(), &[(name, text)]);
        self
    }

    /// Builds the context.
    pub fn build(&self, args: &[&str]) -> Output {
        self.daemon.build(&self.context(), args)
    }

    /// Builds the context with this Dockerfile.
    pub fn dockerfile(&self, text: &str, args: &[&str]) -> Output {
        self.write("Dockerfile", text).build(args)
    }

    /// Runs a command of the client in the context.
    pub fn run(&self, args: &[&str]) -> Output {
        self.daemon.run(&self.context(), args)
    }

    /// A command of the client, to be run in the context.
    pub fn command(&self, args: &[&str]) -> Command {
        self.daemon.command(&self.context(), args)
    }

    /// Runs the client with something on its standard input.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn run_with_stdin(&self, args: &[&str], stdin: &str) -> Output {
        let file = self.path("stdin");
        fs_err::write(&file, stdin).expect("a file");
        let file = fs_err::File::open(file).expect("a file").into_parts().0;
        output(self.command(args).stdin(file))
    }

    /// Checks that no sandbox is left while the daemon still runs.
    pub fn check_sandboxes(&self) {
        self.leaks.check_running();
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let log = fs_err::read_to_string(self.daemon.log()).unwrap_or_default();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{log}");
            return;
        }
        self.check_sandboxes();
        self.daemon.stop();
        self.leaks.check();
        assert!(!log.contains("panicked"), "the daemon's log:\n{log}");
    }
}
