//! Layers: what one step changed, as a directory in normal form, as entries, and as a tar stream.
//!
//! **Normal form** of a layer directory (`snapshots/<id>/fs`): the format of an overlayfs upper directory, with
//! whiteouts as character devices 0:0 (block devices where the file system refuses those), and without opaque marks, overlay xattrs, copied-up objects equal to the lower
//! ones and mount stubs. Such a directory means the same on any parent with equal content.
//!
//! Three things make one: [`commit()`] from an overlay upper directory, [`LayerBuilder`] without a mount, and
//! [`unpack()`] from a layer tar. Where overlays cannot be mounted, [`copy_out()`] gives a plain directory and
//! [`Recorded`] makes an upper directory of what a step did there. [`write_tar`] turns one into the tar stream whose SHA-256 is the diff ID.

mod backing;
mod base;
mod builder;
mod commit;
mod entry;
mod error;
mod hash;
mod normal;
mod plain;
mod restore;
pub(crate) mod tar_in;
mod tar_out;
mod unpack;
mod window;

pub use backing::Backing;
pub use base::Base;
pub use builder::{LayerBuilder, Meta, Special, difference};
pub use commit::{CommitRequest, OverlayMarks, commit};
pub use entry::{Change, CommittedLayer, Entries, LayerEntry};
pub use error::LayerError;
pub use plain::{Recorded, copy_out};
pub(crate) use plain::{below, set_attributes};
pub use restore::{Restored, restore};
pub use tar_in::{TarEntry, TarError, TarKind, TarReader};
pub use tar_out::{TarOptions, diff_id, write_tar};
pub use unpack::{UnpackLimits, Unpacked, unpack};
pub use window::RunWindow;

#[cfg(test)]
mod tests;
