//! Byte counts of transfers, for whoever shows them.

use std::sync::Arc;

use solver::Digest;

/// Which way a blob goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the registry.
    Pull,
    /// To the registry.
    Push,
}

/// How far the transfer of a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The blob.
    pub digest: Digest,
    /// Which way.
    pub direction: Direction,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Is called after each chunk; must be quick and must not block.
pub type ProgressFn = Arc<dyn Fn(Transfer) + Send + Sync>;
