//! How many threads are worth their start.

use std::num::NonZero;
use std::sync::OnceLock;

/// Processors that this process may use, at least 1. Asked once: the standard library reads the cgroup's files each time.
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(2, NonZero::get))
}
