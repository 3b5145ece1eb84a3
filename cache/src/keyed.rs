//! What machines share of a cache without agreeing on anything beforehand: a sealed record under each of the solver's keys, and the
//! blobs that it names, by their digests.
//!
//! A record is good only under the key and in the scope that it was sealed for; who reads it may ask for the signature of somebody that
//! it trusts. What a record says of layers needs no belief: a layer is what its id says, or it is refused ([`crate::layer::restore`]).

mod account;
mod listing;
mod record;
mod scope;
mod seal;
mod signature;
mod snapshot;

use std::collections::BTreeSet;

pub use account::SharedAccount;
pub use listing::{pack, unpack};
pub use record::{SharedBlob, SharedLayer, SharedRecord};
pub use scope::{InvalidScope, Scope};
pub use seal::Unacceptable;
pub use signature::{KeyError, Signer, Trust};
pub use snapshot::{InvalidSnapshotName, MountSnapshot, SnapshotName, Told};

/// How large a sealed record, snapshot or account may be, in bytes.
pub const RECORD_LIMIT: u64 = 1 << 20;

/// The blobs that a sealed record, snapshot or account names, whoever sealed it; none of what is none of these.
pub fn blobs_in(bytes: &[u8]) -> BTreeSet<SharedBlob> {
    let mut blobs = record::blobs_in(bytes);
    blobs.extend(snapshot::blobs_in(bytes));
    blobs.extend(account::blobs_in(bytes));
    blobs
}
