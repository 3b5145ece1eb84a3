//! How the daemon's own process is, as proc(5) tells it.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Figures of the process.
#[derive(Debug)]
pub(super) struct Process {
    resident: Gauge,
    descriptors: Gauge,
}

impl Process {
    /// Registers them.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self { resident: Gauge::default(), descriptors: Gauge::default() };
        let help = "Memory of the daemon's process that is not swapped out";
        registry.register_with_unit("process_resident_memory", help, Unit::Bytes, new.resident.clone());
        let help = "File descriptors that the daemon's process has open";
        registry.register("process_open_fds", help, new.descriptors.clone());
        new
    }

    /// Looks how it is now; what cannot be read stays as it was. Blocking.
    pub(super) fn look(&self) {
        if let Some(bytes) = resident() {
            self.resident.set(bytes);
        }
        if let Ok(open) = fs_err::read_dir("/proc/self/fd") {
            self.descriptors.set(i64::try_from(open.count()).unwrap_or(i64::MAX));
        }
    }
}

/// `VmRSS` of the process's status, in bytes.
fn resident() -> Option<i64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}
