//! Layer to tar stream.

use std::io::Write;
use std::path::Path;

use solver::Digest;

use super::entry::Entries;
use super::error::LayerError;

/// How a tar stream is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TarOptions {
    /// Later times become this one, in seconds since 1970 (SOURCE_DATE_EPOCH with rewritten timestamps).
    pub max_mtime: Option<i64>,
}

/// Writes the OCI layer tar of a layer directory; deterministic, streaming.
///
/// # Errors
/// [`LayerError::Stream`] when `out` fails, [`LayerError::Io`] or [`LayerError::Changed`] when a file cannot be read as it was.
pub fn write_tar<W: Write>(
    entries: &Entries,
    dir: &Path,
    options: TarOptions,
    out: W,
) -> Result<W, LayerError> {
    todo!()
}

/// The diff ID of a layer directory (SHA-256 of its tar stream) and the stream's length in bytes.
///
/// # Errors
/// As [`write_tar`].
pub fn diff_id(entries: &Entries, dir: &Path) -> Result<(Digest, u64), LayerError> {
    todo!()
}
