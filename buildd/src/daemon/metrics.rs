//! Figures for Prometheus: what the daemon did since its start, and how it is.

mod process;
mod serve;

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use cache::store::{BuildRecord, BuildStatus};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub(super) use serve::serve;

use super::builds::Builds;
use crate::version::Version;
use process::Process;

/// Bounds of the classes of durations, in seconds: from a build that is cached to one that takes an hour.
const DURATIONS: [f64; 10] = [0.05, 0.2, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0];

/// One label.
type Label = [(&'static str, &'static str); 1];

/// The figures. Builds that clients make only to find out what the daemon can do do not count.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Mutex<Registry>,
    running: Gauge,
    ended: Family<Label, Counter>,
    durations: Histogram,
    steps: Family<Label, Counter>,
    process: Process,
}

impl Metrics {
    /// All of them zero.
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("rbuild");
        let version = Gauge::<i64>::default();
        version.set(1);
        let named = registry.sub_registry_with_label(("version".into(), Version::own().version.into()));
        named.register("build_info", "The version of the daemon; always 1", version);
        let (running, ended, steps) = (Gauge::default(), Family::default(), Family::default());
        let durations = Histogram::new(DURATIONS);
        registry.register("builds_running", "Builds and containers that run", running.clone());
        registry.register("builds", "Builds that ended, by how", ended.clone());
        registry.register_with_unit(
            "build_duration",
            "How long builds took",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register(
            "steps",
            "Steps of builds that ended, by where their results came from",
            steps.clone(),
        );
        // What never happened is told, too: else its first time cannot be seen.
        for status in ["done", "failed", "cancelled"] {
            let _: &Counter<u64, AtomicU64> = &ended.get_or_create(&[("status", status)]);
        }
        for result in ["cached", "executed"] {
            let _: &Counter<u64, AtomicU64> = &steps.get_or_create(&[("result", result)]);
        }
        let process = Process::new(&mut registry);
        Self { registry: Mutex::new(registry), running, ended, durations, steps, process }
    }

    /// Counts a build that has ended.
    pub(super) fn count(&self, build: &BuildRecord) {
        let status = match build.status {
            BuildStatus::Running => return,
            BuildStatus::Done => "done",
            BuildStatus::Cancelled => "cancelled",
            BuildStatus::Failed { .. } => "failed",
        };
        self.ended.get_or_create(&[("status", status)]).inc();
        let took = build.finished_ms.unwrap_or_default().saturating_sub(build.started_ms);
        self.durations.observe(Duration::from_millis(took).as_secs_f64());
        let executed = build.steps.completed.saturating_sub(build.steps.cached);
        self.steps.get_or_create(&[("result", "cached")]).inc_by(build.steps.cached.into());
        self.steps.get_or_create(&[("result", "executed")]).inc_by(executed.into());
    }

    /// All figures in the text format of OpenMetrics. Blocking.
    fn text(&self, builds: &Builds) -> String {
        self.running.set(i64::try_from(builds.running()).unwrap_or(i64::MAX));
        self.process.look();
        let mut text = String::new();
        // Writing to memory does not fail.
        let _ = encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cache::store::StepCounts;

    use super::*;

    #[test]
    fn builds_are_counted() {
        let metrics = Metrics::new();
        let mut build = BuildRecord {
            reference: "a".into(),
            started_ms: 1_000,
            finished_ms: Some(3_500),
            status: BuildStatus::Done,
            frontend: String::new(),
            attrs: BTreeMap::new(),
            destinations: Vec::new(),
            response: BTreeMap::new(),
            steps: StepCounts { total: 5, completed: 5, cached: 2, warnings: 0 },
            log: None,
            error: None,
            trace: None,
            statements: Vec::new(),
            results: BTreeMap::new(),
            listed: Vec::new(),
            pinned: false,
        };
        metrics.count(&build);
        build.status = BuildStatus::Failed { code: 2, message: "x".into() };
        metrics.count(&build);
        build.status = BuildStatus::Running;
        metrics.count(&build);
        let text = metrics.text(&Builds::new("/nonexistent".into()));
        for line in [
            "rbuild_builds_running 0",
            "rbuild_builds_total{status=\"done\"} 1",
            "rbuild_builds_total{status=\"failed\"} 1",
            "rbuild_builds_total{status=\"cancelled\"} 0",
            "rbuild_build_duration_seconds_sum 5.0",
            "rbuild_build_duration_seconds_bucket{le=\"1.0\"} 0",
            "rbuild_build_duration_seconds_bucket{le=\"5.0\"} 2",
            "rbuild_steps_total{result=\"cached\"} 4",
            "rbuild_steps_total{result=\"executed\"} 6",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
        }
        let resident = text.lines().find_map(|l| l.strip_prefix("rbuild_process_resident_memory_bytes "));
        assert!(resident.unwrap().parse::<u64>().unwrap() > 1 << 20, "{text}");
    }
}
