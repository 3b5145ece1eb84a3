//! A root made of busybox, a launcher, and short ways to run things.
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use runner::overlay::{Overlay, Upper, Way};
use runner::{Exit, Launcher, LauncherConfig, NetworkMode, RootFs, RunnerError, SandboxSpec, Stdio};

/// What a test works with; its files go away with it.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) launcher: Launcher,
    /// The best that this kernel has.
    pub(crate) way: Way,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Result<Exit, RunnerError>,
    pub(crate) output: Vec<u8>,
}

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        match &self.outcome {
            Ok(exit) => exit.status.code(),
            Err(error) => panic!("not started: {error}; output {}", String::from_utf8_lossy(&self.output)),
        }
    }

    /// Standard output and error of a command that succeeded.
    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.output).into_owned();
        assert_eq!(self.code(), 0, "{text}");
        text
    }
}

/// Says why a test does not run here.
pub(crate) fn skip(probe: &str) {
    eprintln!("SKIPPED: {probe}");
}

pub(crate) fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t"))
}

impl Bench {
    pub(crate) fn new() -> Option<Self> {
        Self::with_id(&format!("t{}", std::process::id() % 1_000_000))
    }

    pub(crate) fn with_id(id: &str) -> Option<Self> {
        if !is_root() {
            skip("probe root: sandboxes without root are tested in rootless.rs");
            return None;
        }
        if !Path::new("/bin/busybox").exists() {
            skip("probe busybox: /bin/busybox (package busybox-static) is missing");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        busybox_root(&dir.path().join("base"));
        let probe = dir.path().join("probe");
        fs::create_dir(&probe).unwrap();
        let way = runner::overlay::probe(&probe, &Way::ALL).unwrap();
        Some(Self { dir, launcher: launcher(id), way })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new writable overlay over `base`; `name` names its upper directory.
    pub(crate) fn overlay(&self, name: &str) -> Overlay {
        Overlay { lower: vec![self.path("base")], upper: Some(self.upper(name)) }
    }

    pub(crate) fn upper(&self, name: &str) -> Upper {
        let (dir, work) = (self.path(name), self.path(&format!("{name}.work")));
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(&work).unwrap();
        Upper { dir, work }
    }

    /// A shell script over a fresh overlay, without network.
    pub(crate) fn spec(&self, script: &str) -> SandboxSpec {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.spec_over(RootFs::Overlay(self.overlay(&format!("upper{n}"))), script)
    }

    pub(crate) fn spec_over(&self, root: RootFs, script: &str) -> SandboxSpec {
        let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        SandboxSpec { network: NetworkMode::None, overlays: self.way, ..SandboxSpec::new(root, args) }
    }

    pub(crate) fn run(&self, script: &str) -> Ran {
        self.run_spec(&self.spec(script))
    }

    pub(crate) fn run_spec(&self, spec: &SandboxSpec) -> Ran {
        run(&self.launcher, spec)
    }
}

pub(crate) fn launcher(id: &str) -> Launcher {
    let program = Some(PathBuf::from(env!("CARGO_BIN_EXE_runner-launcher")));
    Launcher::start(LauncherConfig { id: id.to_owned(), program }).unwrap()
}

pub(crate) fn run(launcher: &Launcher, spec: &SandboxSpec) -> Ran {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let stderr: OwnedFd = writer.try_clone().unwrap().into();
    let handle = launcher
        .spawn(spec, Stdio { stdin: None, stdout: Some(writer.into()), stderr: Some(stderr) })
        .unwrap();
    let mut output = Vec::new();
    reader.read_to_end(&mut output).unwrap();
    Ran { outcome: handle.wait(), output }
}

pub(crate) fn busybox_root(dir: &Path) {
    for sub in ["bin", "etc", "tmp", "root", "usr/bin"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox")).unwrap();
    let applets = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap();
    for name in String::from_utf8(applets.stdout).unwrap().lines() {
        if name != "busybox" {
            symlink("busybox", dir.join("bin").join(name)).unwrap();
        }
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
        .unwrap();
    fs::write(dir.join("etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n").unwrap();
}
