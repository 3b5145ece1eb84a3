//! Cache mounts that travel: what one holds, as a list and as packs of chunks, and back.
//!
//! A *list* says what a mount's directory holds, and where the bytes of each file are: in *chunks* (small files whole, large ones cut by
//! their content), which lie in *packs*. Who writes a mount names the packs that are there already and adds new ones for the chunks that
//! are in none, so that only what changed travels; packs of which little is used any more are written anew, as far as their files are
//! here. Two lists are united by path, the newest file of each.

mod chunks;
mod error;
mod list;
mod pack;
mod restore;
mod scan;
mod unite;

pub use chunks::{Chunk, Contents};
pub use error::MountError;
pub use list::{LIST_LIMIT, LIST_TYPE, MountList, Pack};
pub use pack::{NewPack, PACK_LIMIT, PACK_TYPE, Packed, pack, unpack};
pub use restore::{Spool, restore};
pub use scan::{Scanned, scan};
pub use unite::unite;

#[cfg(test)]
mod tests;
