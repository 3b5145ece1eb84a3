//! A chain of layers seen as one file system, in user space and read-only.
//!
//! Exporters, gateway reads, user look-ups and copies from other stages read through a [`MergedView`], so none of
//! them needs a mount or a privilege.

pub(crate) mod disk;
mod error;
mod merged;

pub use disk::{FileType, Stat};
pub use error::ViewError;
pub use merged::{DirItem, Located, MergedView};

#[cfg(test)]
mod tests;
