//! What the daemon says of itself: version, worker, garbage collection.

mod emulation;

use cache::oci::Platform;
use cache::store::PrunePolicy;
use proto::worker::{BuildkitVersion, CdiDevice, GcPolicy, WorkerRecord};

use super::devices::Device;
use super::gc;
use super::parts::Parts;

/// The version of BuildKit's frontend that this behaves as.
const DOCKERFILE_VERSION: &str = "1.26.0";

/// The daemon's version, under BuildKit's names.
pub(super) fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "rbuild".to_owned(),
        version: format!("v{}", env!("CARGO_PKG_VERSION")),
        revision: String::new(),
        dockerfile_version: DOCKERFILE_VERSION.to_owned(),
    }
}

/// The only worker. Blocking: it looks at the disk.
pub(super) fn worker(parts: &Parts) -> WorkerRecord {
    let label = |k: &str, v: String| (format!("org.mobyproject.buildkit.worker.{k}"), v);
    let own = parts.config.worker.oci.labels.clone();
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    WorkerRecord {
        id: parts.worker_id(),
        labels: [
            label("executor", "oci".to_owned()),
            label("hostname", hostname),
            label("snapshotter", parts.mounting.snapshotter().to_owned()),
        ]
        .into_iter()
        .chain(own)
        .collect(),
        platforms: platforms(&parts.config.worker.oci.platforms).into_iter().map(encode).collect(),
        gc_policy: collected(parts),
        buildkit_version: Some(version()),
        cdi_devices: parts.worker.devices.all().into_values().map(device).collect(),
    }
}

/// This machine's platform, what else it can run, and what it is said to run as well.
fn platforms(said: &[String]) -> Vec<Platform> {
    let mut all = vec![Platform::host()];
    let said = said.iter().filter_map(|text| text.parse().ok());
    for platform in emulation::platforms(&all[0]).into_iter().chain(said) {
        if !all.contains(&platform) {
            all.push(platform);
        }
    }
    all
}

fn encode(platform: Platform) -> proto::pb::Platform {
    proto::pb::Platform {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant.unwrap_or_default(),
        ..Default::default()
    }
}

fn device(device: Device) -> CdiDevice {
    CdiDevice {
        name: device.name,
        auto_allow: device.auto_allowed,
        annotations: device.annotations,
        on_demand: false,
    }
}

/// The rules by which garbage is collected; none where it is not.
fn collected(parts: &Parts) -> Vec<GcPolicy> {
    let worker = &parts.config.worker.oci;
    let disk = parts.store.disk_space().ok().filter(|_| worker.gc);
    let rules = disk.map_or_else(Vec::new, |disk| gc::policies(worker, disk));
    rules.into_iter().map(rule).collect()
}

fn rule(policy: PrunePolicy) -> GcPolicy {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    GcPolicy {
        all: policy.all,
        filters: policy.filters,
        keep_duration: i64::try_from(policy.keep_duration.as_nanos()).unwrap_or(i64::MAX),
        reserved_space: signed(policy.reserved_space),
        max_used_space: signed(policy.max_used_space),
        min_free_space: signed(policy.min_free_space),
    }
}
