//! The cgroups of one keeper.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::host::{Controller, Version, find};
use super::unified;
use crate::error::{Doing, RunnerError};
use crate::spec::{Limits, Share, Swap};

const CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", CPUSET];
const CPUSET: &str = "cpuset";
/// A group of version 1 takes no processes before it has both (kernel, cgroup-v1/cpusets.rst).
const CPUSET_FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];
/// Length of a CPU accounting period, microseconds; the kernel's default.
const PERIOD_MICROS: u64 = 100_000;

/// The cgroups of a keeper's cradle. It is moved into them when a limit is first needed.
#[derive(Debug)]
pub(crate) struct Cgroups {
    place: Place,
    leaf: String,
    member: Pid,
    joined: BTreeMap<&'static str, Group>,
    weighed: bool,
}

/// Where a keeper's cgroups lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The daemon's own directory.
    pub own: String,
    /// The cgroup that it lies in, from the tops of the hierarchies on; none is where the daemon may make cgroups.
    pub parent: Option<PathBuf>,
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
    pub(crate) fn new(place: Place, member: Pid) -> Self {
        Self {
            place,
            leaf: leaf_name(rustix::process::getpid().as_raw_pid()),
            member,
            joined: BTreeMap::new(),
            weighed: false,
        }
    }

    /// Sets the limits of the next sandbox, and lifts those that it does not have.
    ///
    /// Where somebody else named the place, the limits that it has itself count too, so it is joined for every controller.
    pub(crate) fn apply(&mut self, limits: &Limits) -> Result<(), RunnerError> {
        if self.place.parent.is_some() {
            for controller in CONTROLLERS {
                if find(controller)?.is_some() {
                    self.join(controller)?;
                }
            }
        }
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

    /// Gives the next sandbox another share of the machine than others have. There is no way back: it is to be the last.
    pub(crate) fn share(&mut self, limits: &Limits, share: &Share) -> Result<(), RunnerError> {
        let Share { memory_and_swap, cpu_shares, processors, memory_nodes } = share;
        if let (Some(Swap::Bytes(total)), Some(memory)) = (memory_and_swap, limits.memory)
            && *total < memory
        {
            return Err(RunnerError::LimitRefused {
                resource: "memory-swap".to_owned(),
                reason: format!("{total} bytes with swap are less than the {memory} without"),
            });
        }
        if let Some(swap) = memory_and_swap {
            let Group { version, dir, .. } = self.join("memory")?;
            write_swap(*version, dir, limits.memory, *swap)?;
        }
        if let Some(shares) = cpu_shares {
            let group = self.join("cpu")?;
            let shares = (*shares).clamp(2, 262_144);
            match group.version {
                Version::V1 => write(&group.dir.join("cpu.shares"), &shares.to_string())?,
                // The range of one onto that of the other, as runc does it.
                Version::V2 => {
                    write(&group.dir.join("cpu.weight"), &(1 + (shares - 2) * 9_999 / 262_142).to_string())?
                }
            }
        }
        for (file, list) in CPUSET_FILES.into_iter().zip([processors, memory_nodes]) {
            if !list.is_empty() {
                let dir = self.join(CPUSET)?.dir.clone();
                write(&dir.join(file), list).map_err(|error| RunnerError::LimitRefused {
                    resource: file.to_owned(),
                    reason: error.to_string(),
                })?;
            }
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
                let base = match &self.place.parent {
                    None => Ok(controller.base.clone()),
                    Some(parent) => open_way(&controller, name, parent)
                        .inspect(|dir| remove_stale(&dir.join(&self.place.own))),
                };
                let entered = base.and_then(|base| {
                    let parent = base.join(&self.place.own);
                    let group =
                        Group { version: controller.version, dir: parent.join(&self.leaf), limit: None };
                    match enter(&controller, name, &parent, &group.dir, self.member) {
                        Ok(()) => Ok(group),
                        Err(error) => {
                            group.remove();
                            Err(error)
                        }
                    }
                });
                let group = entered.map_err(|error| match &self.place.parent {
                    None => refused(error.to_string()),
                    Some(parent) => {
                        RunnerError::CgroupParent { path: parent.clone(), reason: error.to_string() }
                    }
                })?;
                Ok(place.insert(group))
            }
        }
    }
}

impl Drop for Cgroups {
    /// Removes them, once the cradle has ended, and the daemon's if they were the last in it.
    fn drop(&mut self) {
        for group in self.joined.values() {
            group.remove();
        }
    }
}

impl Group {
    fn remove(&self) {
        // Busy only if the sandbox still dies; then the launcher, or the next one, removes it.
        let _busy = fs_err::remove_dir(&self.dir);
        let _shared = self.dir.parent().map(fs_err::remove_dir);
    }
}

/// Makes the cgroup `parent`, from the hierarchy's top on, where it is missing, and lets groups in it have the controller. It stays:
/// others may be about to use it, too.
fn open_way(controller: &Controller, name: &str, parent: &Path) -> Result<PathBuf, RunnerError> {
    let mut dir = controller.top.clone();
    for part in parent {
        switch_on(controller, name, &dir)?;
        dir.push(part);
        make_dir(&dir)?;
        inherit(controller, name, &dir)?;
    }
    switch_on(controller, name, &dir)?;
    Ok(dir)
}

/// Lets the groups in `dir` have the controller.
fn switch_on(controller: &Controller, name: &str, dir: &Path) -> Result<(), RunnerError> {
    match controller.version {
        Version::V2 if !unified::offers(dir, name) => {
            // Says why it cannot be.
            write(&dir.join("cgroup.subtree_control"), &format!("+{name}"))
        }
        _ => Ok(()),
    }
}

/// Makes the group `dir` within the daemon's own, and moves `member` there.
fn enter(
    controller: &Controller,
    name: &str,
    parent: &Path,
    dir: &Path,
    member: Pid,
) -> Result<(), RunnerError> {
    let make = || {
        make_dir(parent)?;
        switch_on(controller, name, parent)?;
        make_dir(dir)?;
        inherit(controller, name, parent)?;
        inherit(controller, name, dir)
    };
    // Whoever left it last may have taken the parent away while it was empty.
    make().or_else(|error| if parent.is_dir() { Err(error) } else { make() })?;
    write(&dir.join("cgroup.procs"), &member.as_raw_pid().to_string())
}

/// Fills in the processors and memory nodes of a group that was just made, where the kernel does not.
fn inherit(controller: &Controller, name: &str, dir: &Path) -> Result<(), RunnerError> {
    if (name, controller.version) != (CPUSET, Version::V1) {
        return Ok(());
    }
    let read = |path: &Path| fs_err::read_to_string(path).doing(|| format!("read `{}`", path.display()));
    for file in CPUSET_FILES {
        let own = dir.join(file);
        if let (true, Some(above)) = (read(&own)?.trim().is_empty(), dir.parent()) {
            write(&own, read(&above.join(file))?.trim())?;
        }
    }
    Ok(())
}

/// Lets a group have swap. Where the kernel does not count it there is none to limit.
fn write_swap(version: Version, dir: &Path, memory: Option<u64>, swap: Swap) -> Result<(), RunnerError> {
    let (file, value) = match (version, swap) {
        (Version::V1, Swap::Unlimited) => ("memory.memsw.limit_in_bytes", "-1".to_owned()),
        (Version::V1, Swap::Bytes(total)) => ("memory.memsw.limit_in_bytes", total.to_string()),
        (Version::V2, Swap::Unlimited) => ("memory.swap.max", "max".to_owned()),
        (Version::V2, Swap::Bytes(total)) => {
            ("memory.swap.max", total.saturating_sub(memory.unwrap_or(0)).to_string())
        }
    };
    let path = dir.join(file);
    if path.exists() { write(&path, &value) } else { Ok(()) }
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

/// Removes what keepers that were killed have left in a place that only their jobs knew.
fn remove_stale(dir: &Path) {
    for leaf in fs_err::read_dir(dir).into_iter().flatten().flatten() {
        let name = leaf.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix('k')?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _busy = fs_err::remove_dir(leaf.path());
        }
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
