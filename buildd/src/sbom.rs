//! What is installed in a file system, and the document (SPDX 2.3) that says so: bytes in, text out, no I/O.
//!
//! The databases of package managers, the lock files of languages and the metadata of what their tools installed are read
//! ([`FileKind::of`] says which). They come out of images that nobody vouches for: each reader takes any bytes, is linear in their
//! length, and gives what it understood. Equal files give equal documents.

mod apk;
mod cargo;
mod dpkg;
mod file_kind;
mod golang;
mod inventory;
mod license;
mod npm;
mod os_release;
mod package;
mod php;
mod pnpm;
mod python;
mod rpm;
mod ruby;
mod spdx;
mod sqlite;
mod stanzas;
#[cfg(test)]
mod tests;
mod yarn;

pub use file_kind::{FileKind, ReadError};
pub use inventory::Inventory;
pub use os_release::OsRelease;
pub use package::{Ecosystem, Package};
pub use rpm::HeaderError;
pub use spdx::{Origin, document};
pub use sqlite::SqliteError;
