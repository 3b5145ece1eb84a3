//! fsutil's file transfer protocol, both ends.
//!
//! The client sends build contexts and receives exported directories; the daemon does the opposite. The state machines are
//! synchronous and run on blocking threads; [`send()`] and [`receive()`] connect them to gRPC streams.
//! Protocol: `proto/fsutil/types.proto`.

mod error;
mod follow;
mod metadata;
mod mirror;
mod mode;
mod order;
mod queue;
mod receive;
mod send;
mod tree;
mod write;

pub use error::TransferError;
pub use metadata::MetadataOnly;
pub use mirror::{Differ, Mirror, Mirrored};
pub use mode::{file_mode, st_mode};
pub use order::OrderCheck;
pub use queue::{Reply, packets, replies};
pub use receive::{Data, Sink, receive};
pub use send::{Files, send};
pub use tree::{Selection, Tree};
pub use write::{DirWriter, Owners};
