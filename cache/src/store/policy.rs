//! What a prune keeps.
//!
//! The meaning of the fields and the default policy are BuildKit's (`cache/manager.go`,
//! `cmd/buildkitd/config/gcpolicy.go`), so that `gcpolicy` sections of a buildkitd.toml can be taken over.

use std::time::Duration;

use super::disk::DiskSpace;
use super::usage::UsageRecord;

/// One rule of garbage collection, or what `prune` was asked for. The default removes everything that is neither
/// in use nor shared nor internal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunePolicy {
    /// Of what to remove things; see the filter syntax of `du`. Empty: of everything.
    pub filters: Vec<String>,
    /// Whether internal things go too.
    pub all: bool,
    /// What was used within this time stays. Zero: nothing stays for that.
    pub keep_duration: Duration,
    /// Below this many bytes in all, nothing is removed.
    pub reserved_space: u64,
    /// Above this many bytes in all, things are removed. Zero: no bound.
    pub max_used_space: u64,
    /// Things are removed until this many bytes of the disk are free. Zero: no bound.
    pub min_free_space: u64,
}

impl PrunePolicy {
    /// Whether it only removes until a bound is met.
    fn has_bound(&self) -> bool {
        self.max_used_space != 0 || self.reserved_space != 0 || self.min_free_space != 0
    }

    /// Whether it empties the cache.
    pub(super) fn is_everything(&self) -> bool {
        self.all && self.filters.is_empty() && self.keep_duration.is_zero() && !self.has_bound()
    }

    /// Down to how many bytes of `total` it goes; `None` when there is no bound.
    pub(super) fn keep_bytes(&self, total: u64, free: u64) -> Option<u64> {
        if !self.has_bound() {
            return None;
        }
        let excess = self.min_free_space.saturating_sub(free);
        let keep = match (self.max_used_space, excess) {
            (0, 0) if self.min_free_space == 0 => 0, // only reserved space is given
            (0, excess) => total.saturating_sub(excess),
            (max, 0) => max,
            (max, excess) => max.min(total.saturating_sub(excess)),
        };
        Some(keep.max(self.reserved_space))
    }
}

/// In words, after the name of who applies it.
impl std::fmt::Display for PrunePolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut words = Vec::new();
        if self.all {
            words.push("all".to_owned());
        }
        words.extend(self.filters.iter().map(|filter| format!("filter {filter}")));
        if !self.keep_duration.is_zero() {
            words.push(format!("unused for {} s", self.keep_duration.as_secs()));
        }
        for (bytes, what) in [
            (self.reserved_space, "reserved space"),
            (self.max_used_space, "max used space"),
            (self.min_free_space, "min free space"),
        ] {
            if bytes != 0 {
                words.push(format!("{what} {bytes} B"));
            }
        }
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(", ")) }
    }
}

/// Most of the disk that the cache may take; above it, the least useful goes.
const MAX_PERCENT: u64 = 75;
/// This much of the disk stays free.
const FREE_PERCENT: u64 = 20;
/// At most this much is never removed, whatever happens.
const RESERVE_PERCENT: u64 = 10;
const RESERVE_BYTES: u64 = 10_000_000_000;
const MAX_BYTES: u64 = 100_000_000_000;
/// Caches that are cheap to make again.
const CHEAP: [&str; 3] = ["type==source.local", "type==exec.cachemount", "type==source.git.checkout"];
const DAY: Duration = Duration::from_hours(24);

/// The rules used when the configuration has none, for a disk of this size.
pub fn default_policies(disk: DiskSpace) -> Vec<PrunePolicy> {
    let bounds = PrunePolicy {
        reserved_space: percent(disk, RESERVE_PERCENT).min(RESERVE_BYTES),
        max_used_space: percent(disk, MAX_PERCENT).min(MAX_BYTES),
        min_free_space: percent(disk, FREE_PERCENT),
        ..PrunePolicy::default()
    };
    vec![
        PrunePolicy {
            filters: CHEAP.map(str::to_owned).to_vec(),
            keep_duration: 2 * DAY,
            max_used_space: 512_000_000,
            ..PrunePolicy::default()
        },
        PrunePolicy { keep_duration: 60 * DAY, ..bounds.clone() },
        bounds.clone(),
        PrunePolicy { all: true, ..bounds },
    ]
}

/// A share of the disk, rounded up to whole gigabytes as BuildKit does.
fn percent(disk: DiskSpace, percent: u64) -> u64 {
    (((disk.total / 100 * percent) >> 30) + 1) * 1_000_000_000
}

/// Sorts what may go: long unused and seldom used first.
pub(super) fn sort_by_use<T>(items: &mut [T], record: impl Fn(&T) -> &UsageRecord) {
    let rank = |values: Vec<u64>| {
        let mut distinct = values;
        distinct.sort_unstable();
        distinct.dedup();
        distinct
    };
    let times = rank(items.iter().map(|item| record(item).last_used_ms).collect());
    let counts = rank(items.iter().map(|item| record(item).usage_count).collect());
    // Both as a share of their range, so that neither outweighs the other.
    let place = |ranks: &[u64], value: u64| ranks.partition_point(|&r| r < value) as f64 / ranks.len() as f64;
    let key = |item: &T| {
        let record = record(item);
        place(&times, record.last_used_ms) + place(&counts, record.usage_count)
    };
    items.sort_by(|a, b| key(a).total_cmp(&key(b)).then_with(|| record(a).id.cmp(&record(b).id)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let policy = |reserved_space, max_used_space, min_free_space| PrunePolicy {
            reserved_space,
            max_used_space,
            min_free_space,
            ..PrunePolicy::default()
        };
        for (policy, total, free, expected) in [
            (policy(0, 0, 0), 100, 5, None),
            (policy(0, 60, 0), 100, 5, Some(60)),
            (policy(0, 60, 50), 100, 5, Some(55)),
            (policy(0, 60, 10), 100, 5, Some(60)),
            (policy(0, 0, 10), 100, 5, Some(95)),
            (policy(0, 0, 10), 100, 50, Some(100)),
            (policy(70, 60, 50), 100, 5, Some(70)),
            (policy(70, 0, 0), 100, 5, Some(70)),
            (policy(0, 0, 500), 100, 5, Some(0)),
        ] {
            assert_eq!(policy.keep_bytes(total, free), expected, "{policy:?}");
        }
    }
}
