//! The cgroups of one keeper.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::host::{Controller, Version, find};
use crate::error::{Doing, RunnerError};
use crate::spec::Limits;

const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// Length of a CPU accounting period, microseconds; the kernel's default.
const PERIOD_MICROS: u64 = 100_000;

/// The cgroups of a keeper's cradle. It is moved into them when a limit is first needed.
#[derive(Debug)]
pub(crate) struct Cgroups {
    parent: String,
    leaf: String,
    member: Pid,
    joined: BTreeMap<&'static str, Group>,
    weighed: bool,
}

#[derive(Debug)]
struct Group {
    version: Version,
    dir: PathBuf,
    /// The limit that it has now.
    limit: Option<u64>,
}

/// How often limits were hit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hits {
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Processes and threads that could not be started.
    pub refused_forks: u64,
}

impl Hits {
    /// What was added.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            oom_kills: self.oom_kills.saturating_sub(before.oom_kills),
            refused_forks: self.refused_forks.saturating_sub(before.refused_forks),
        }
    }
}

impl Cgroups {
    /// For the keeper that this process is, with `member` in them; nothing is made yet.
    pub(crate) fn new(parent: &str, member: Pid) -> Self {
        Self {
            parent: parent.to_owned(),
            leaf: leaf_name(rustix::process::getpid().as_raw_pid()),
            member,
            joined: BTreeMap::new(),
            weighed: false,
        }
    }

    /// Sets the limits of the next sandbox, and lifts those that it does not have.
    pub(crate) fn apply(&mut self, limits: &Limits) -> Result<(), RunnerError> {
        for (controller, limit) in
            [("memory", limits.memory), ("cpu", limits.cpu_millis), ("pids", limits.pids)]
        {
            // The cradle is one of the processes counted.
            let limit = if controller == "pids" { limit.map(|n| n.saturating_add(1)) } else { limit };
            if limit.is_some() || self.joined.contains_key(controller) {
                let group = self.join(controller)?;
                if group.limit != limit {
                    write_limit(controller, group.version, &group.dir, limit)?;
                    group.limit = limit;
                }
            }
        }
        if !limits.is_empty() && !self.weighed {
            self.weighed = true;
            // Fairness, no limit: where it cannot be had, nothing that was asked for is missing.
            let _unweighed = self.weigh();
        }
        Ok(())
    }

    /// Makes the sandbox one group for the scheduler: thousands of busy processes weigh as much as one per processor
    /// of this process's nice value.
    fn weigh(&mut self) -> Result<(), RunnerError> {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let group = self.join("cpu")?;
        // A step of nice makes a factor of 1.25 (sched(7)).
        let nice = rustix::process::getpriority_process(None).unwrap_or(0);
        let share = |one: u64| ((one * processors) as f64 * 0.8_f64.powi(nice)) as u64;
        let (file, weight) = match group.version {
            Version::V1 => ("cpu.shares", share(1024).clamp(2, 262_144)),
            Version::V2 => ("cpu.weight", share(100).clamp(1, 10_000)),
        };
        write(&group.dir.join(file), &weight.to_string())
    }

    /// What the kernel counted so far.
    pub(crate) fn hits(&self) -> Hits {
        Hits {
            oom_kills: self.count(
                "memory",
                |v| if v == Version::V1 { "memory.oom_control" } else { "memory.events" },
                "oom_kill ",
            ),
            refused_forks: self.count("pids", |_| "pids.events", "max "),
        }
    }

    fn count(&self, controller: &str, file: impl Fn(Version) -> &'static str, key: &str) -> u64 {
        let Some(group) = self.joined.get(controller) else { return 0 };
        let text = fs_err::read_to_string(group.dir.join(file(group.version))).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0)
    }

    fn join(&mut self, name: &'static str) -> Result<&mut Group, RunnerError> {
        match self.joined.entry(name) {
            Entry::Occupied(joined) => Ok(joined.into_mut()),
            Entry::Vacant(place) => {
                let refused =
                    |reason: String| RunnerError::LimitRefused { resource: name.to_owned(), reason };
                let controller = find(name)?
                    .ok_or_else(|| refused(format!("this host has no `{name}` cgroup controller")))?;
                let dir = controller.base.join(&self.parent);
                let dir = enter(&controller, name, &dir, &self.leaf, self.member)
                    .map_err(|error| refused(error.to_string()))?;
                Ok(place.insert(Group { version: controller.version, dir, limit: None }))
            }
        }
    }
}

impl Drop for Cgroups {
    /// Removes them, once the cradle has ended, and the daemon's if they were the last in it.
    fn drop(&mut self) {
        for group in self.joined.values() {
            // Busy only if the sandbox still dies; then the launcher, or the next one, removes it.
            let _busy = fs_err::remove_dir(&group.dir);
            let _shared = group.dir.parent().map(fs_err::remove_dir);
        }
    }
}

fn enter(
    controller: &Controller,
    name: &str,
    parent: &Path,
    leaf: &str,
    member: Pid,
) -> Result<PathBuf, RunnerError> {
    let dir = parent.join(leaf);
    let make = || {
        make_dir(parent)?;
        if controller.version == Version::V2 {
            write(&parent.join("cgroup.subtree_control"), &format!("+{name}"))?;
        }
        make_dir(&dir)
    };
    // Whoever left it last may have taken the parent away while it was empty.
    make().or_else(|error| if parent.is_dir() { Err(error) } else { make() })?;
    write(&dir.join("cgroup.procs"), &member.as_raw_pid().to_string())?;
    Ok(dir)
}

fn leaf_name(pid: i32) -> String {
    format!("k{pid}")
}

pub(super) fn make_dir(path: &Path) -> Result<(), RunnerError> {
    match fs_err::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).doing(|| format!("create cgroup `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

pub(super) fn write(path: &Path, value: &str) -> Result<(), RunnerError> {
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
