//! Whether a commit, or the tag around it, is signed by whom a source trusts.

use std::time::SystemTime;

use super::git_object::{GitObject, Kind, ObjectError};
use super::pgp::{self, PgpError, Policy};
use super::ssh::{self, SshError};

/// Whose signature is asked for, and where it may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitSigner {
    /// OpenPGP keys in their armor, one after the other, or a line as in `authorized_keys`.
    pub keys: String,
    /// A key that has expired since does not count.
    pub reject_expired: bool,
    /// A commit that is signed is not enough.
    pub require_tag: bool,
    /// A tag that is signed does not count.
    pub ignore_tag: bool,
}

/// An object, and the hash by which it was asked for, in lower-case hexadecimal.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The object's hash.
    pub id: &'a str,
    /// As git stores it.
    pub raw: &'a [u8],
}

/// What was asked for is not signed as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Unverified {
    /// It has no signature.
    #[error("git object is not signed")]
    Unsigned,
    /// What stands in a signature's place is none.
    #[error("invalid signature format")]
    Format,
    /// There is no tag to be signed.
    #[error("signed tag required but no signed tag found")]
    NoTag,
    /// Not an object.
    #[error("failed to parse git {kind} object")]
    Object {
        /// What it should be.
        kind: Kind,
        /// What is wrong with it.
        #[source]
        source: ObjectError,
    },
    /// Another object.
    #[error("{kind} object checksum verification failed")]
    Checksum {
        /// What it should be.
        kind: Kind,
        /// Which one it is.
        #[source]
        source: ObjectError,
    },
    /// The OpenPGP signature does not stand up.
    #[error(transparent)]
    Pgp(#[from] PgpError),
    /// The SSH signature does not stand up.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

impl GitSigner {
    /// Checks a commit by its own signature or that of the tag by which it was found. A tag whose signature is not good is no
    /// reason to refuse a commit whose signature is, unless a tag is required.
    ///
    /// The caller has made sure that `tag` leads to `commit`.
    ///
    /// # Errors
    /// Why neither counts.
    pub fn verify(
        &self,
        commit: Signed<'_>,
        tag: Option<Signed<'_>>,
        now: SystemTime,
    ) -> Result<(), Unverified> {
        let mut refused = None;
        if let Some(tag) = tag.filter(|_| !self.ignore_tag) {
            match self.check(&object(Kind::Tag, tag)?, now) {
                Ok(()) => return Ok(()),
                Err(why) => refused = Some(why),
            }
        }
        if self.require_tag {
            return Err(refused.unwrap_or(Unverified::NoTag));
        }
        self.check(&object(Kind::Commit, commit)?, now)
    }

    /// Checks the signature that an object has, whatever its hash.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn check(&self, object: &GitObject<'_>, now: SystemTime) -> Result<(), Unverified> {
        if object.signature.is_empty() {
            return Err(Unverified::Unsigned);
        }
        let signature = String::from_utf8_lossy(&object.signature);
        if signature.starts_with("-----BEGIN PGP SIGNATURE-----") {
            let policy = Policy { reject_expired: self.reject_expired, now };
            Ok(pgp::verify(&signature, &self.keys, policy, || Ok(object.payload.as_slice()))?)
        } else if signature.starts_with("-----BEGIN SSH SIGNATURE-----") {
            Ok(ssh::verify(&object.payload, &signature, &self.keys)?)
        } else {
            Err(Unverified::Format)
        }
    }
}

/// The object that `signed` says it is.
fn object(kind: Kind, signed: Signed<'_>) -> Result<GitObject<'_>, Unverified> {
    let object = GitObject::parse(kind, signed.raw).map_err(|source| Unverified::Object { kind, source })?;
    object.check(signed.id).map_err(|source| Unverified::Checksum { kind, source })?;
    Ok(object)
}
