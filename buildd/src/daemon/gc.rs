//! Garbage collection after builds.

use std::sync::Arc;
use std::time::Duration;

use cache::store::{DiskSpace, PrunePolicy, StoreError, default_policies};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::blocking::blocking;
use super::config::OciWorker;
use super::parts::Parts;

/// From the end of a build until garbage is collected: the next build of a series should not have to share the disk.
const DELAY: Duration = Duration::from_secs(5);
/// Between two collections; each looks at everything that the store holds.
const PERIOD: Duration = Duration::from_secs(60);

/// Collects garbage some time after each `wanted`, until `stop`; a collection under way then ends early.
pub(super) async fn serve(parts: Arc<Parts>, wanted: Arc<Notify>, stop: CancellationToken) {
    if !parts.config.worker.oci.gc {
        return;
    }
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
    blocking(move || {
        let policies = policies(&worker, store.disk_space()?);
        Ok(store.collect(&policies, &stop)?.bytes)
    })
    .await
}

/// The default rules, with the configured bounds in place of the default ones where there are any.
pub(super) fn policies(worker: &OciWorker, disk: DiskSpace) -> Vec<PrunePolicy> {
    let mut policies = default_policies(disk);
    let bounds = [worker.reserved_space, worker.max_used_space, worker.min_free_space];
    if bounds.iter().all(Option::is_none) {
        return policies;
    }
    let [reserved, max_used, min_free] = bounds.map(|b| b.map_or(0, |size| size.bytes(disk.total)));
    // The rule for what is cheap to make again has bounds of its own.
    for policy in policies.iter_mut().filter(|p| p.filters.is_empty()) {
        (policy.reserved_space, policy.max_used_space, policy.min_free_space) =
            (reserved, max_used, min_free);
    }
    policies
}

#[cfg(test)]
mod tests {
    use super::super::config::Size;
    use super::*;

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
