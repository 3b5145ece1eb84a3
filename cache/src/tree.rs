//! Content trees: the persistent Merkle tree of a file system.
//!
//! A tree is a set of content-addressed directory nodes in a [`NodeStore`]; its root's [`NodeId`] is the
//! *rootfs digest*, the content digest of an output. A step adds only the nodes that its layer touched
//! ([`Trees::apply`]). The *copy digest* ([`Trees::copy_digest`]) of the same nodes leaves times and hard links out.
//!
//! Reading order: `path`, `node`, `codec` (the bytes that are hashed), `trees`, then one file per operation.

mod apply;
mod bundle;
pub(crate) mod codec;
mod copy_digest;
mod diff;
mod error;
mod lookup;
mod node;
mod path;
pub(crate) mod resolve;
mod store;
mod trees;

pub use bundle::Bundle;
pub use copy_digest::Select;
pub use error::TreeError;
pub use lookup::{Follow, Found};
pub use node::{FileDigest, Kind, Node, NodeId, Xattrs};
pub use path::{InvalidPath, MAX_DEPTH, TreePath};
pub use store::{MemoryNodes, NodeStore, NodeStoreError};
pub use trees::{TreeEntry, Trees};

#[cfg(test)]
mod tests;
