//! The time a step ran.

use std::time::{SystemTime, UNIX_EPOCH};

/// File systems stamp with the kernel's coarse clock, which lags by up to one tick (10 ms at 100 Hz): a smaller
/// margin makes times of a step's first moment count, so that a step that runs again never gives equal content.
pub(super) const CLOCK_LAG_NS: i64 = 20_000_000;

/// When a step ran; modification times inside do not count for content digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunWindow {
    /// Nanoseconds since 1970, inclusive.
    start: i64,
    /// Nanoseconds since 1970, inclusive.
    end: i64,
}

impl RunWindow {
    /// From `start` (before the step's first write) to `end` (after its last).
    pub fn new(start: SystemTime, end: SystemTime) -> Self {
        Self { start: unix_ns(start).saturating_sub(CLOCK_LAG_NS), end: unix_ns(end) }
    }

    /// Just the time that a file operation gives to what it makes: every other that it writes was set by somebody else, however
    /// shortly before.
    pub fn at(time: SystemTime) -> Self {
        let ns = unix_ns(time);
        Self { start: ns, end: ns }
    }

    /// A window that holds no time: every time counts (unpacked images).
    pub const fn none() -> Self {
        Self { start: i64::MAX, end: i64::MIN }
    }

    /// Whether a time in nanoseconds since 1970 lies inside.
    pub fn contains(&self, ns: i64) -> bool {
        (self.start..=self.end).contains(&ns)
    }
}

/// Nanoseconds since 1970, negative before, saturated at the ends of the range (years 1677 and 2262).
pub(crate) fn unix_ns(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}
