//! What machines share of a cache without agreeing on anything beforehand: a sealed record under each of the solver's keys, and the
//! blobs that it names, by their digests.
//!
//! A record is good only under the key and in the scope that it was sealed for; who reads it may ask for the signature of somebody that
//! it trusts. What a record says of layers needs no belief: a layer is what its id says, or it is refused ([`crate::layer::restore`]).

mod listing;
mod record;
mod scope;
mod signature;

pub use listing::{pack, unpack};
pub use record::{SharedBlob, SharedLayer, SharedRecord, Unacceptable};
pub use scope::{InvalidScope, Scope};
pub use signature::{KeyError, Signer, Trust};

/// How large a sealed record may be, in bytes.
pub const RECORD_LIMIT: u64 = 1 << 20;
