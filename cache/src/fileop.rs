//! Execution of LLB file operations in user space, without a mount.
//!
//! [`execute()`] runs the actions of a `FileOp` in order. What they read comes from [`FileInput`]s: chains of layers, read
//! through their content tree and view, or walked contexts. What they write goes to one new layer per output.
//! The meaning of each action is BuildKit's (`solver/llbsolver/file`, fsutil's `copy`), errors included.
//!
//! [`selection`] gives the digest of what a copy selects: what its cache key is made of.

mod actions;
mod archive;
pub mod content_hash;
mod copy;
mod decompress;
pub mod difference;
mod env;
mod error;
mod execute;
mod filters;
mod jobs;
mod mode;
mod owner;
mod resolve;
pub mod selection;
mod source;
mod state;
mod tree_copy;
mod untar;
mod users;
mod wildcard;

pub use archive::{ARCHIVE_HEAD, is_archive};
pub use env::{CopyProgress, FileInput, FileOpEnv, FileOutput};
pub use error::{ActionError, FileOpError};
pub use execute::execute;
pub use mode::{InvalidMode, ModeChange};

#[cfg(test)]
mod tests;
