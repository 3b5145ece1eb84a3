//! Garbage collection after builds, of the cache and of the history.

use std::sync::Arc;
use std::time::Duration;

use cache::store::{DiskSpace, HistoryLimits, PrunePolicy, StoreError, default_policies};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::blocking::blocking;
use super::config::{GcPolicy, HistoryConfig, OciWorker, Size};
use super::parts::Parts;

/// From the end of a build until garbage is collected: the next build of a series should not have to share the disk.
const DELAY: Duration = Duration::from_secs(5);
/// Between two collections; each looks at everything that the store holds.
const PERIOD: Duration = Duration::from_secs(60);

/// Collects garbage some time after each `wanted`, until `stop`; a collection under way then ends early.
pub(super) async fn serve(parts: Arc<Parts>, wanted: Arc<Notify>, stop: CancellationToken) {
    let work = async {
        loop {
            wanted.notified().await;
            tokio::time::sleep(DELAY).await;
            match collect(&parts, stop.clone()).await {
                Ok(0) | Err(StoreError::Interrupted(_)) => {}
                Ok(bytes) => tracing::info!(bytes, "collected garbage"),
                Err(e) => tracing::warn!("garbage collection failed: {e}"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    };
    let _ = stop.run_until_cancelled(work).await;
}

async fn collect(parts: &Parts, stop: CancellationToken) -> Result<u64, StoreError> {
    let (store, worker) = (parts.store.clone(), parts.config.worker.oci.clone());
    let limits = history_limits(parts.config.history);
    blocking(move || {
        store.history().trim(limits)?;
        if !worker.gc {
            return Ok(0);
        }
        let policies = policies(&worker, store.disk_space()?);
        Ok(store.collect(&policies, &stop)?.bytes)
    })
    .await
}

fn history_limits(config: HistoryConfig) -> HistoryLimits {
    let default = HistoryLimits::default();
    HistoryLimits {
        max_age: config.max_age.map_or(default.max_age, |age| age.0),
        max_entries: config.max_entries.unwrap_or(default.max_entries),
        ..default
    }
}

/// The configured rules; or else the default ones, with the configured bounds in place of theirs where there are any.
pub(super) fn policies(worker: &OciWorker, disk: DiskSpace) -> Vec<PrunePolicy> {
    let bytes = |size: Option<Size>| size.map_or(0, |size| size.bytes(disk.total));
    if !worker.gcpolicy.is_empty() {
        let rule = |rule: &GcPolicy| PrunePolicy {
            filters: rule.filters.clone(),
            all: rule.all,
            keep_duration: rule.keep_duration.0,
            reserved_space: bytes(rule.reserved_space),
            max_used_space: bytes(rule.max_used_space.or(rule.keep_bytes)),
            min_free_space: bytes(rule.min_free_space),
        };
        return worker.gcpolicy.iter().map(rule).collect();
    }
    let mut policies = default_policies(disk);
    let reserved = worker.reserved_space.or(worker.gckeepstorage);
    let bounds = [reserved, worker.max_used_space, worker.min_free_space];
    if bounds.iter().all(Option::is_none) {
        return policies;
    }
    let [reserved, max_used, min_free] = bounds.map(bytes);
    // The rule for what is cheap to make again has bounds of its own.
    for policy in policies.iter_mut().filter(|p| p.filters.is_empty()) {
        (policy.reserved_space, policy.max_used_space, policy.min_free_space) =
            (reserved, max_used, min_free);
    }
    policies
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::*;

    #[test]
    fn a_stock_files_rules() {
        let text = r#"
            [worker.oci]
              gckeepstorage = 9000
            [[worker.oci.gcpolicy]]
              keepBytes = "512MB"
              keepDuration = "48h"
              filters = [ "type==source.local", "type==exec.cachemount" ]
            [[worker.oci.gcpolicy]]
              all = true
              keepDuration = 60
              reservedSpace = 10
              maxUsedSpace = "50%"
            [history]
              maxAge = 172800
              maxEntries = 7
        "#;
        let config: Config = toml::from_str(text).unwrap();
        let found = policies(&config.worker.oci, DiskSpace { total: 1000, free: 500 });
        let cheap = PrunePolicy {
            filters: vec!["type==source.local".into(), "type==exec.cachemount".into()],
            keep_duration: Duration::from_hours(48),
            max_used_space: 512_000_000,
            ..PrunePolicy::default()
        };
        let all = PrunePolicy {
            all: true,
            keep_duration: Duration::from_secs(60),
            reserved_space: 10,
            max_used_space: 500,
            ..PrunePolicy::default()
        };
        assert_eq!(found, [cheap, all]);
        let limits = history_limits(config.history);
        assert_eq!((limits.max_age, limits.max_entries), (Duration::from_hours(48), 7));
        let older: Config = toml::from_str("[worker.oci]\ngckeepstorage = 9000").unwrap();
        let found = policies(&older.worker.oci, DiskSpace { total: 1000, free: 500 });
        assert_eq!(found[1].reserved_space, 9000);
    }

    #[test]
    fn configured_bounds_replace_all_default_ones() {
        let disk = DiskSpace { total: 1000, free: 500 };
        assert_eq!(policies(&OciWorker::default(), disk), default_policies(disk));
        let worker = OciWorker { max_used_space: Some(Size::Percent(50)), ..OciWorker::default() };
        let bounds: Vec<_> = policies(&worker, disk)
            .iter()
            .map(|p| (p.reserved_space, p.max_used_space, p.min_free_space))
            .collect();
        assert_eq!(bounds, [(0, 512_000_000, 0), (0, 500, 0), (0, 500, 0), (0, 500, 0)]);
    }
}
