//! Layers made on real directories and, where the kernel lets us, on real overlay mounts.

mod archive;
mod builder;
mod fixture;
mod hostile;
mod overlay;

use super::Meta;

/// Attributes of root's, with a time that counts.
fn fixture_meta(mode: u32) -> Meta {
    Meta { mode, mtime: 1_000_000_000_123_456_789, ..Meta::default() }
}
