//! Local contexts: a client's directory, walked and hashed in place.
//!
//! [`walk()`] reads a directory given as a descriptor, in parallel, leaves out what the ignore file and the
//! wanted paths leave out, hashes what the [`StatCache`] does not know, and stores the result as a content tree. The
//! [`Context`] it returns opens files for copying.
//!
//! Each component is opened by itself without following links, so nothing outside the directory is ever opened.
//! As BuildKit does for a client's local source, owners become 0:0 and extended attributes are dropped; modes and
//! times stay; sockets become empty files.

mod assemble;
mod digests;
mod error;
mod filter;
mod follow;
mod hash;
mod listing;
mod local;
mod names;
mod queue;
mod stat_cache;
mod walk;
mod worker;
mod written;

pub(crate) use digests::FileDigests;
pub use error::ContextError;
pub(crate) use listing::{read_names, stat_fd, stat_in};
pub use local::{Context, ThreadInit, WalkStats};
pub use names::names;
pub use stat_cache::{DirKey, MemoryStatCache, StatCache, StatCacheError};
pub use walk::{WalkRequest, walk};
pub use written::{FileRecorder, Recorded, remember};

#[cfg(test)]
mod tests;
