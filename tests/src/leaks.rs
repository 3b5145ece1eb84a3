//! What a daemon must not leave behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Daemon;

/// Mounts below a daemon's directory, its network links and firewall tables, its cgroups and its processes.
///
/// Only what names this daemon counts: suites run side by side.
#[derive(Debug)]
pub struct Leaks {
    id: String,
    dir: String,
}

impl Leaks {
    /// Watches what a daemon makes.
    pub fn watch(daemon: &Daemon) -> Self {
        let root = daemon.root();
        Self { id: daemon.id(), dir: root.parent().expect("the root has a parent").display().to_string() }
    }

    /// Checks that no sandbox is left of a daemon that still runs.
    ///
    /// # Panics
    /// When one stays for five seconds.
    pub fn check_running(&self) {
        self.wait(|| self.mounts().into_iter().chain(self.sandboxes()).collect());
    }

    /// Checks that nothing is left of a daemon that has ended.
    ///
    /// # Panics
    /// When something stays for five seconds.
    pub fn check(&self) {
        self.wait(|| {
            let mut all = self.mounts();
            all.extend(self.links());
            all.extend(self.firewall());
            cgroups(Path::new("/sys/fs/cgroup"), 0, &format!("rbuild-{}", self.id), &mut all);
            all.extend(self.processes());
            all
        });
    }

    fn wait(&self, left: impl Fn() -> BTreeSet<String>) {
        let begun = Instant::now();
        loop {
            let left = left();
            if left.is_empty() {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "left behind by {}: {left:#?}", self.id);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn mounts(&self) -> BTreeSet<String> {
        let mounts = fs_err::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let ours = |l: &&str| l.split(' ').nth(4).is_some_and(|m| m.starts_with(&self.dir));
        mounts.lines().filter(ours).map(|l| format!("mount {l}")).collect()
    }

    fn links(&self) -> BTreeSet<String> {
        let entries = fs_err::read_dir("/sys/class/net").into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter(|n| n.contains(&self.id)).map(|n| format!("link {n}")).collect()
    }

    /// Its firewall tables, where there are some that we may see, and the note of one.
    fn firewall(&self) -> BTreeSet<String> {
        let listed = Command::new("nft").args(["list", "tables", "ip"]).output();
        let text = listed.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        let name = format!("rbuild_{}_", self.id);
        let tables = text.lines().filter(|l| l.contains(&name)).map(|l| format!("firewall {l}"));
        let marker = format!("/run/rbuild-{}.nft", self.id);
        tables.chain(Path::new(&marker).exists().then_some(marker)).collect()
    }

    /// Processes of steps: those in one of the daemon's cgroups that are not its own helpers.
    fn sandboxes(&self) -> BTreeSet<String> {
        self.find(|proc| {
            let name = fs_err::read_to_string(proc.join("comm")).unwrap_or_default();
            self.is_inside(proc) && !name.starts_with("rbuild-")
        })
    }

    fn is_inside(&self, proc: &Path) -> bool {
        let text = fs_err::read_to_string(proc.join("cgroup")).unwrap_or_default();
        text.contains(&format!("rbuild-{}/", self.id))
    }

    fn processes(&self) -> BTreeSet<String> {
        let mut all = self.find(|proc| self.is_inside(proc));
        all.extend(self.find(|proc| {
            let text = fs_err::read(proc.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&self.dir) && !text.starts_with(b"docker-registry")
        }));
        all
    }

    fn find(&self, ours: impl Fn(&Path) -> bool) -> BTreeSet<String> {
        let entries = fs_err::read_dir("/proc").into_iter().flatten().flatten();
        let dirs = entries.map(|e| e.path()).filter(|p| {
            let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            name.bytes().all(|b| b.is_ascii_digit()) && name != std::process::id().to_string()
        });
        let describe = |p: std::path::PathBuf| {
            let text = fs_err::read(p.join("cmdline")).unwrap_or_default();
            format!("process {} {}", p.display(), String::from_utf8_lossy(&text).replace('\0', " "))
        };
        dirs.filter(|p| ours(p)).map(describe).collect()
    }
}

fn cgroups(dir: &Path, depth: usize, name: &str, all: &mut BTreeSet<String>) {
    for entry in fs_err::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy() == name {
            all.insert(format!("cgroup {}", path.display()));
        } else if depth < 4 {
            cgroups(&path, depth + 1, name, all);
        }
    }
}
