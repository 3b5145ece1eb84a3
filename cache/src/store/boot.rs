//! Which boot of the machine this is.

use fs_err as fs;

use super::error::StoreError;

/// The kernel's random id of this boot (`proc(5)`, `/proc/sys/kernel/random/boot_id`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Reads the id of this boot.
pub(super) fn current_id() -> Result<String, StoreError> {
    let text = fs::read_to_string(BOOT_ID).map_err(StoreError::io("read", BOOT_ID.as_ref()))?;
    Ok(text.trim().to_owned())
}
