//! What a daemon must not leave behind.

use std::collections::BTreeSet;

/// Mounts, links, cgroups and processes of rbuild, as they were before a suite.
#[derive(Debug)]
pub struct Leaks {
    before: BTreeSet<String>,
}

impl Leaks {
    /// Remembers how things are.
    pub fn watch() -> Self {
        Self { before: now() }
    }

    /// Checks that nothing came to stay.
    ///
    /// # Panics
    /// When something did.
    pub fn check(&self) {
        let begun = std::time::Instant::now();
        loop {
            let left: Vec<String> = now().difference(&self.before).cloned().collect();
            if left.is_empty() {
                return;
            }
            assert!(begun.elapsed() < std::time::Duration::from_secs(5), "left behind: {left:#?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn now() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    all.extend(mounts.lines().filter_map(|l| l.split(' ').nth(4)).map(|m| format!("mount {m}")));
    for entry in fs_err::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        all.insert(format!("link {}", entry.file_name().to_string_lossy()));
    }
    cgroups(std::path::Path::new("/sys/fs/cgroup"), 0, &mut all);
    all
}

/// rbuild's own cgroups only: others come and go.
fn cgroups(dir: &std::path::Path, depth: usize, all: &mut BTreeSet<String>) {
    for entry in fs_err::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with("rbuild-") {
            all.insert(format!("cgroup {}", path.display()));
        } else if depth < 2 {
            cgroups(&path, depth + 1, all);
        }
    }
}
