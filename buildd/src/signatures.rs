//! Who signed what a source gave: bytes in, verdict out, no I/O.
//!
//! OpenPGP keys and SSH keys vouch for commits and tags of git ([`GitSigner`]), OpenPGP keys for files ([`pgp`]). What is
//! accepted is what BuildKit accepts (`util/pgpsign`, `util/gitutil/gitsign`); the algorithms are those of the crates `pgp` and
//! `ssh-key`.

mod certificate;
mod git;
mod git_object;
pub mod pgp;
mod ssh;
#[cfg(test)]
mod tests;

pub use git::{GitSigner, Signed, Unverified};
pub use git_object::{GitObject, Kind, ObjectError};
pub use ssh::SshError;
