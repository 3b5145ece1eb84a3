//! A chain as a plain directory: for caches and volumes that begin with an image's files, and for steps on file systems
//! that refuse overlayfs.

mod changes;
mod copy_out;

pub use changes::Recorded;
pub use copy_out::copy_out;
pub(crate) use copy_out::{below, set_attributes};
