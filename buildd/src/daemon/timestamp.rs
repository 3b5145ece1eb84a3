//! Times on the wire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A protobuf timestamp.
pub(super) fn from_system(t: SystemTime) -> prost_types::Timestamp {
    let d = t.duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp { seconds: d.as_secs() as i64, nanos: d.subsec_nanos() as i32 }
}

/// A protobuf timestamp of milliseconds since 1970.
pub(super) fn from_millis(ms: u64) -> prost_types::Timestamp {
    from_system(UNIX_EPOCH + Duration::from_millis(ms))
}

/// Now, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    to_millis(SystemTime::now())
}

/// Milliseconds since 1970.
pub(super) fn to_millis(t: SystemTime) -> u64 {
    t.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
