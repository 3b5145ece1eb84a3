//! What a step may use, so that one that runs wild leaves the daemon and the other steps alive.

use std::path::{Component, Path, PathBuf};

use runner::{CgroupSupport, Limits, Share, Swap};
use solver::Job;

use crate::daemon::config::{OciWorker, Size, StepConfig};

/// A step's share of the processes that the kernel allows. Four steps in a frenzy leave half of them to the others.
const PIDS_SHARE: u64 = 8;
/// More than these no step needs.
const MOST_PIDS: u64 = 32_768;
/// The rest is for the daemon and everybody else on the machine.
const MEMORY: Size = Size::Percent(80);
/// Steps are killed before the daemon when the machine runs out of memory (proc_pid_oom_score_adj(5)).
const BADNESS: i32 = 500;

/// Limits of steps that ask for none themselves, and the cgroup that has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct StepLimits {
    limits: Limits,
    cgroup_parent: String,
}

impl StepLimits {
    /// From the configuration, as far as this machine can enforce it. What it cannot is warned of.
    pub(in crate::daemon) fn new(config: &OciWorker) -> Self {
        let support = CgroupSupport::detect();
        let missing = |what: &str| {
            tracing::warn!("this daemon can make no cgroups for {what}: steps run without such a limit");
        };
        if support.pids.is_none() {
            missing("pids");
        }
        if support.memory.is_none() {
            missing("memory");
        }
        let all = Self::choose(config.step, allowed_pids(), all_memory());
        let limits = Limits {
            pids: all.pids.filter(|_| support.pids.is_some()),
            memory: all.memory.filter(|_| support.memory.is_some()),
            cpu_millis: None,
        };
        Self { limits, cgroup_parent: config.default_cgroup_parent.clone() }
    }

    /// On a machine that allows so many processes and has so many bytes of memory.
    fn choose(config: StepConfig, pids: Option<u64>, memory: Option<u64>) -> Limits {
        let pids = config.pids.or_else(|| Some((pids? / PIDS_SHARE).clamp(1, MOST_PIDS)));
        let memory = match config.memory {
            Some(Size::Bytes(n)) => Some(n),
            share => memory.map(|all| share.unwrap_or(MEMORY).bytes(all)),
        };
        Limits { pids: pids.filter(|n| *n > 0), memory: memory.filter(|n| *n > 0), cpu_millis: None }
    }

    /// The limits of a step: its own where it has some.
    pub(super) fn of(&self, job: &Job) -> Limits {
        let Some(r) = &job.vertex.meta.resources else { return self.limits };
        let period = if r.cpu_period == 0 { 100_000 } else { r.cpu_period };
        let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
        let quota = positive(r.cpu_quota);
        Limits {
            memory: positive(r.memory).or_else(|| {
                // Memory alone is never more than with swap.
                self.limits.memory.map(|usual| usual.min(positive(r.memory_swap).unwrap_or(usual)))
            }),
            cpu_millis: quota.map(|q| q.saturating_mul(1000) / period),
            pids: self.limits.pids,
        }
    }

    /// What a step gets of the machine besides, where it asks for it.
    pub(super) fn share(&self, job: &Job) -> Share {
        let Some(r) = &job.vertex.meta.resources else { return Share::default() };
        Share {
            memory_and_swap: match r.memory_swap {
                0 => None,
                bytes => Some(u64::try_from(bytes).map_or(Swap::Unlimited, Swap::Bytes)),
            },
            cpu_shares: Some(r.cpu_shares).filter(|shares| *shares > 0),
            processors: r.cpuset_cpus.clone(),
            memory_nodes: r.cpuset_mems.clone(),
        }
    }

    /// The cgroup that those of a step lie in: the one that it asks for, or else the configured one.
    ///
    /// None for a rootless daemon, which may make them only in its own. BuildKit's ignores the wish as well.
    pub(super) fn cgroup_parent(&self, asked: &str) -> Option<PathBuf> {
        let chosen = if asked.is_empty() { &self.cgroup_parent } else { asked };
        Some(downwards(chosen)).filter(|path| *path != Path::new("") && !runner::overlay::in_user_namespace())
    }

    /// A step's out-of-memory score.
    pub(super) fn badness(&self) -> i32 {
        BADNESS
    }
}

/// A path from a top that `..` does not leave.
fn downwards(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// How many processes and threads the kernel allows at a time.
fn allowed_pids() -> Option<u64> {
    let read = |name: &str| {
        fs_err::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse::<u64>().ok()
    };
    [read("pid_max"), read("threads-max")].into_iter().flatten().min()
}

/// The machine's memory, bytes (proc_meminfo(5)).
fn all_memory() -> Option<u64> {
    let text = fs_err::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 =
        text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_parents_lie_below_the_top() {
        let cases = [("/a/b", "a/b"), ("a//./b/", "a/b"), ("../../a", "a"), ("a/../..", ""), ("/", "")];
        for (given, clean) in cases {
            assert_eq!(downwards(given), Path::new(clean), "{given}");
        }
    }

    #[test]
    fn the_machine_decides_where_the_configuration_does_not() {
        let choose = |pids, memory| {
            let limits = StepLimits::choose(StepConfig { pids, memory }, Some(32_768), Some(1000 << 20));
            (limits.pids, limits.memory)
        };
        assert_eq!(choose(None, None), (Some(4096), Some(800 << 20)));
        assert_eq!(choose(Some(10), Some(Size::Percent(50))), (Some(10), Some(500 << 20)));
        assert_eq!(choose(Some(0), Some(Size::Bytes(0))), (None, None));
        assert_eq!(choose(None, Some(Size::Bytes(7))), (Some(4096), Some(7)));
        let big = StepLimits::choose(StepConfig::default(), Some(4 << 20), None);
        assert_eq!((big.pids, big.memory), (Some(MOST_PIDS), None));
    }
}
