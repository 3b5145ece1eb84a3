//! The cgroups of one keeper.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::host::{Controller, Version, find};
use crate::error::{Doing, RunnerError};
use crate::spec::Limits;

const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// Length of a CPU accounting period, microseconds; the kernel's default.
const PERIOD_MICROS: u64 = 100_000;

/// The cgroups a keeper is in. It joins one when a limit first needs it.
#[derive(Debug)]
pub(crate) struct Cgroups {
    parent: String,
    leaf: String,
    joined: BTreeMap<&'static str, (Version, PathBuf)>,
}

impl Cgroups {
    /// For this process; nothing is made yet.
    pub(crate) fn new(parent: &str) -> Self {
        Self {
            parent: parent.to_owned(),
            leaf: leaf_name(rustix::process::getpid().as_raw_pid()),
            joined: BTreeMap::new(),
        }
    }

    /// Sets the limits of the next sandbox, and lifts those that it does not have.
    pub(crate) fn apply(&mut self, limits: &Limits) -> Result<(), RunnerError> {
        for (controller, limit) in
            [("memory", limits.memory), ("cpu", limits.cpu_millis), ("pids", limits.pids)]
        {
            if limit.is_some() || self.joined.contains_key(controller) {
                let (version, dir) = self.join(controller)?;
                // The keeper itself is one of the processes counted.
                let limit = if controller == "pids" { limit.map(|n| n.saturating_add(1)) } else { limit };
                write_limit(controller, *version, dir, limit)?;
            }
        }
        Ok(())
    }

    /// How many processes here were killed for want of memory so far.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some((version, dir)) = self.joined.get("memory") else { return 0 };
        let file = match version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = fs_err::read_to_string(dir.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    fn join(&mut self, name: &'static str) -> Result<&(Version, PathBuf), RunnerError> {
        if !self.joined.contains_key(name) {
            let refused = |reason: String| RunnerError::LimitRefused { resource: name.to_owned(), reason };
            let controller =
                find(name)?.ok_or_else(|| refused(format!("this host has no `{name}` cgroup controller")))?;
            let dir = self.enter(&controller, name).map_err(|error| refused(error.to_string()))?;
            self.joined.insert(name, (controller.version, dir));
        }
        Ok(&self.joined[name])
    }

    fn enter(&self, controller: &Controller, name: &str) -> Result<PathBuf, RunnerError> {
        let parent = controller.base.join(&self.parent);
        let dir = parent.join(&self.leaf);
        let make = || {
            make_dir(&parent)?;
            if controller.version == Version::V2 {
                write(&parent.join("cgroup.subtree_control"), &format!("+{name}"))?;
            }
            make_dir(&dir)
        };
        // An ending monitor of an earlier daemon may have taken the parent away while it was empty.
        make().or_else(|error| if parent.is_dir() { Err(error) } else { make() })?;
        write(&dir.join("cgroup.procs"), "0")?;
        Ok(dir)
    }

    /// Goes back to where this process came from and removes what it leaves, and what an ended daemon has left.
    pub(crate) fn leave(&self) {
        for dir in self.joined.values().map(|(_, dir)| dir) {
            if let Some(parent) = dir.parent()
                && let Some(base) = parent.parent()
            {
                // Where one of these fails, the next start removes it.
                let _moved = fs_err::write(base.join("cgroup.procs"), "0");
                let _removed = fs_err::remove_dir(dir);
                let _busy = fs_err::remove_dir(parent);
            }
        }
    }
}

fn leaf_name(pid: i32) -> String {
    format!("k{pid}")
}

fn make_dir(path: &Path) -> Result<(), RunnerError> {
    match fs_err::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).doing(|| format!("create cgroup `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, value: &str) -> Result<(), RunnerError> {
    fs_err::write(path, value).doing(|| format!("write `{value}` to `{}`", path.display()))
}

fn write_limit(
    controller: &str,
    version: Version,
    dir: &Path,
    limit: Option<u64>,
) -> Result<(), RunnerError> {
    let number = |none: &str| limit.map_or(none.to_owned(), |n| n.to_string());
    let quota = limit.map(|millis| (millis * PERIOD_MICROS / 1000).max(1000));
    match (controller, version) {
        ("memory", Version::V1) => write(&dir.join("memory.limit_in_bytes"), &number("-1")),
        ("memory", Version::V2) => {
            write(&dir.join("memory.max"), &number("max"))?;
            // Swap would lift the limit; hosts without swap accounting have no such file.
            let swap = dir.join("memory.swap.max");
            if swap.exists() { write(&swap, if limit.is_some() { "0" } else { "max" }) } else { Ok(()) }
        }
        ("cpu", Version::V1) => {
            write(&dir.join("cpu.cfs_period_us"), &PERIOD_MICROS.to_string())?;
            write(&dir.join("cpu.cfs_quota_us"), &quota.map_or("-1".to_owned(), |q| q.to_string()))
        }
        ("cpu", Version::V2) => {
            let quota = quota.map_or("max".to_owned(), |q| q.to_string());
            write(&dir.join("cpu.max"), &format!("{quota} {PERIOD_MICROS}"))
        }
        _ => write(&dir.join("pids.max"), &number("max")),
    }
}

/// Removes what a keeper that has ended was in.
pub(crate) fn remove_leaf(parent: &str, pid: i32) {
    for dir in parents(parent) {
        // Missing where it joined nothing; busy only if the keeper was killed and its sandbox still dies.
        let _missing = fs_err::remove_dir(dir.join(leaf_name(pid)));
    }
}

/// Removes the daemon's own cgroups, with what an earlier one left behind.
pub(crate) fn remove_parent(parent: &str) {
    for dir in parents(parent) {
        for leaf in fs_err::read_dir(&dir).into_iter().flatten().flatten() {
            if leaf.path().is_dir() {
                // Busy ones belong to somebody who is still dying; the next start removes them.
                let _busy = fs_err::remove_dir(leaf.path());
            }
        }
        let _busy = fs_err::remove_dir(&dir);
    }
}

fn parents(parent: &str) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = CONTROLLERS
        .iter()
        .filter_map(|name| Some(find(name).ok()??.base.join(parent)))
        .filter(|dir| dir.is_dir())
        .collect();
    dirs.dedup();
    dirs
}
