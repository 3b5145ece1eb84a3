//! OpenPGP keys ("certificates"): which of their keys may sign, and from when to when.
//!
//! What a key says of itself counts only as far as its own signatures bear it out. Of several the newest counts.

use pgp::composed::{Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::packet::{PublicKey, RevocationCode, Signature, SignatureType};
use pgp::types::{KeyDetails, KeyId, KeyVersion, SignedUser, Tag};

use super::pgp::KeysError;

const BEGIN: &str = "-----BEGIN ";

/// An owner's keys.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) key: PublicKey,
    /// What the owner says of the primary key, together with the name that is preferred.
    pub(super) binding: Signature,
    /// The owner's own revocations of that name.
    pub(super) name_revocations: Vec<Signature>,
    /// The owner's own revocations of all of it.
    pub(super) revocations: Vec<Signature>,
    pub(super) subkeys: Vec<Subkey>,
}

/// A further key of an owner that may sign.
#[derive(Debug)]
pub(super) struct Subkey {
    pub(super) key: pgp::packet::PublicSubkey,
    pub(super) binding: Signature,
    pub(super) revocations: Vec<Signature>,
}

/// Reads armored keys, one block after the other. Keys that are damaged or too new are passed over if there are others.
///
/// # Errors
/// No key is left, or a block holds something else.
pub(super) fn read(text: &str) -> Result<Vec<Certificate>, KeysError> {
    let (mut certificates, mut last) = (Vec::new(), None);
    for block in blocks(text) {
        let (keys, _) = SignedPublicKey::from_string_many(block).map_err(KeysError::Block)?;
        for key in keys {
            match key.map_err(KeysError::Block).and_then(Certificate::new) {
                Ok(certificate) => certificates.push(certificate),
                Err(error) => last = Some(error),
            }
        }
    }
    match certificates.is_empty() {
        true => Err(last.unwrap_or(KeysError::None)),
        false => Ok(certificates),
    }
}

/// From each line that begins an armor to the next such line.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let begins = |at: &usize| *at == 0 || text.as_bytes()[at - 1] == b'\n';
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).filter(begins).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([text.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| &text[start..end])
}

impl Certificate {
    fn new(key: SignedPublicKey) -> Result<Self, KeysError> {
        let SignedPublicKey { primary_key, details, public_subkeys } = key;
        if primary_key.version() != KeyVersion::V4 {
            return Err(KeysError::Version(u8::from(primary_key.version())));
        }
        // One by another key cannot be checked, and must not be overlooked.
        if details.revocation_signatures.iter().any(|revocation| revocation.verify_key(&primary_key).is_err())
        {
            return Err(KeysError::ForeignRevocation);
        }
        let names = details.users.iter().filter_map(|user| Name::new(user, &primary_key));
        let name = names.reduce(Name::preferred).ok_or(KeysError::Nameless)?;
        let subkeys = public_subkeys.into_iter().filter_map(|subkey| Subkey::new(subkey, &primary_key));
        Ok(Self {
            subkeys: subkeys.collect(),
            binding: name.binding,
            name_revocations: name.revocations,
            revocations: details.revocation_signatures,
            key: primary_key,
        })
    }
}

/// Whom a key belongs to, as its owner says.
struct Name {
    binding: Signature,
    revocations: Vec<Signature>,
}

impl Name {
    fn new(user: &SignedUser, key: &PublicKey) -> Option<Self> {
        let own = |signature: &&Signature| {
            issuer(signature) == Some(key.legacy_key_id())
                && signature.verify_certification(key, Tag::UserId, &user.id).is_ok()
        };
        let (revocations, bindings): (Vec<_>, Vec<_>) = user
            .signatures
            .iter()
            .filter(own)
            .cloned()
            .partition(|signature| signature.typ() == Some(SignatureType::CertRevocation));
        Some(Self { binding: newest(bindings)?, revocations })
    }

    /// The one that speaks for the key: not revoked, called primary, newer, in this order.
    fn preferred(self, other: Self) -> Self {
        let rank = |name: &Self| {
            (std::cmp::Reverse(name.revocations.len()), name.binding.is_primary(), name.binding.created())
        };
        if rank(&other) > rank(&self) { other } else { self }
    }
}

impl Subkey {
    /// A key that the owner of `primary` says may sign, and which says itself that it is the owner's.
    fn new(subkey: SignedPublicSubKey, primary: &PublicKey) -> Option<Self> {
        let SignedPublicSubKey { key, signatures } = subkey;
        let own = |signature: &Signature| signature.verify_subkey_binding(primary, &key).is_ok();
        let (revocations, bindings): (Vec<_>, Vec<_>) = signatures
            .into_iter()
            .filter(own)
            .partition(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation));
        let binding = newest(bindings)?;
        let back = binding.embedded_signature()?;
        back.verify_primary_key_binding(&key, primary).ok()?;
        Some(Self { key, binding, revocations })
    }
}

/// The key that a signature says it is by; only a fingerprint of version 4 tells an id (RFC 9580, section 5.5.4.2).
pub(super) fn issuer(signature: &Signature) -> Option<KeyId> {
    let of_fingerprint = || {
        let fingerprint = *signature.issuer_fingerprint().first()?;
        let tail: [u8; 8] = fingerprint.as_bytes().last_chunk().copied()?;
        (fingerprint.version() == Some(KeyVersion::V4)).then(|| KeyId::from(tail))
    };
    signature.issuer_key_id().first().map(|id| **id).or_else(of_fingerprint)
}

fn newest(signatures: Vec<Signature>) -> Option<Signature> {
    signatures.into_iter().max_by_key(Signature::created)
}

/// Whether revocations say that a key or name did not count at a time, in seconds since 1970. A key that was lost to somebody
/// else never counted.
pub(super) fn revoked(revocations: &[Signature], at: u64) -> bool {
    revocations.iter().any(|revocation| {
        let since = revocation.created().map_or(0, |created| u64::from(created.as_secs()));
        revocation.revocation_reason_code() == Some(&RevocationCode::KeyCompromised)
            || (since <= at && !expired(revocation, at))
    })
}

/// Whether a signature had run out at a time, in seconds since 1970.
pub(super) fn expired(signature: &Signature, at: u64) -> bool {
    let created = signature.created().map_or(0, |created| u64::from(created.as_secs()));
    let lifetime = signature.signature_expiration_time().map_or(0, |lifetime| u64::from(lifetime.as_secs()));
    lifetime != 0 && at > created + lifetime
}
