//! OpenPGP signatures that stand beside what they sign (RFC 9580, section 10.4).

use std::io::{self, Read};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgp::composed::{Deserializable, DetachedSignature};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{Signature, SignatureType, SignatureVersion, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, KeyId, PublicParams};

use super::certificate::{self, Certificate, Subkey, expired, issuer, revoked};

/// How far a signer's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(5 * 60);
/// Shorter keys of RSA can be broken.
const RSA_BITS: u16 = 2048;

/// What counts beyond the signature being right.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Keys and signatures have to be valid now; otherwise it is enough that they were when the signature was made.
    pub reject_expired: bool,
    /// The time that it is.
    pub now: SystemTime,
}

/// A signature that does not stand up.
#[derive(Debug, thiserror::Error)]
pub enum PgpError {
    /// Not a signature in its armor.
    #[error("failed to decode armored signature")]
    Armor(#[source] pgp::errors::Error),
    /// The armor holds something else.
    #[error("no signature packet found")]
    NoSignature,
    /// The keys are not to be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A hash that can be forged, or is not known.
    #[error("rejecting weak/unknown hash: {0}")]
    Hash(String),
    /// An algorithm that is not accepted.
    #[error("rejecting unsupported pubkey algorithm: {0:?}")]
    Algorithm(PublicKeyAlgorithm),
    /// A format, or a kind, that does not sign data.
    #[error("unsupported signature of version {version:?} and type {kind:?}")]
    Kind {
        /// Of the packet.
        version: SignatureVersion,
        /// What it signs.
        kind: Option<SignatureType>,
    },
    /// A signature that does not say when it was made.
    #[error("signature has no creation time")]
    Undated,
    /// Made when it is not yet.
    #[error("signature creation time is in the future: {0}")]
    Future(jiff::Timestamp),
    /// By nobody, if one believes it.
    #[error("signature doesn't have an issuer")]
    Anonymous,
    /// By none of the keys.
    #[error("signature by {0}: openpgp: signature made by unknown entity")]
    Unknown(Issuer),
    /// Of other data, or by another key of the same name.
    #[error("signature by {issuer}: openpgp: invalid signature")]
    Mismatch {
        /// Who it says made it.
        issuer: Issuer,
        /// Why.
        #[source]
        source: pgp::errors::Error,
    },
    /// A restriction that is not understood must not be overlooked.
    #[error("signature by {issuer}: openpgp: invalid signature: unknown critical notation: {name}")]
    Critical {
        /// Who made it.
        issuer: Issuer,
        /// What is critical.
        name: String,
    },
    /// By a key that its owner has withdrawn.
    #[error("signature by {0}: openpgp: signature made by revoked key")]
    Revoked(Issuer),
    /// By a key that does not count any longer, or did not yet.
    #[error("signature by {0}: openpgp: key expired")]
    KeyExpired(Issuer),
    /// It does not count any longer.
    #[error("signature by {0}: openpgp: signature expired")]
    Expired(Issuer),
    /// The key can be broken.
    #[error("RSA key too short: {0} bits")]
    Short(u16),
    /// What is signed cannot be read.
    #[error("cannot read what is signed")]
    Read(#[source] io::Error),
}

/// Keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// There is none.
    #[error("failed to read armored public key: no armored data found")]
    None,
    /// Not a public key, or a damaged one.
    #[error("failed to read armored public key")]
    Block(#[source] pgp::errors::Error),
    /// A format that is too old or too new.
    #[error("failed to read armored public key: unsupported version {0}")]
    Version(u8),
    /// No name in it is signed by the key itself.
    #[error("failed to read armored public key: v4 entity without any identities")]
    Nameless,
    /// Withdrawn by a key that is not known.
    #[error("failed to read armored public key: revocation signature signed by alternate key")]
    ForeignRevocation,
}

/// The id of a key, in upper-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issuer(KeyId);

impl std::fmt::Display for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode_upper(self.0.as_ref()))
    }
}

/// Checks that one of `keys` (armored, one block after the other) made `signature` (armored) of what `open` gives, from its
/// beginning each time.
///
/// # Errors
/// What does not stand up.
pub fn verify<R: Read>(
    signature: &str,
    keys: &str,
    policy: Policy,
    mut open: impl FnMut() -> io::Result<R>,
) -> Result<(), PgpError> {
    let signatures = read(signature)?;
    let certificates = certificate::read(keys)?;
    let first = signatures.first().ok_or(PgpError::NoSignature)?;
    // One file may hold the signatures of several: the first that is by somebody who is known decides.
    let known = signatures.iter().find_map(|signature| {
        let signers: Vec<_> = certificates.iter().flat_map(|owner| Signer::all(owner, signature)).collect();
        (!signers.is_empty()).then_some((signature, signers))
    });
    let Some((signature, signers)) = known else {
        acceptable(first)?;
        return Err(issuer(first).map_or(PgpError::Anonymous, |id| PgpError::Unknown(Issuer(id))));
    };
    acceptable(signature)?;
    let mut refused = PgpError::NoSignature;
    for signer in signers {
        match signer.verify(signature, open().map_err(PgpError::Read)?) {
            Ok(()) => return signer.check(signature, policy),
            Err(source) => {
                refused = PgpError::Mismatch { issuer: Issuer(signer.key().legacy_key_id()), source }
            }
        }
    }
    Err(refused)
}

/// The signatures in an armor.
fn read(armored: &str) -> Result<Vec<Signature>, PgpError> {
    let (signatures, _) = DetachedSignature::from_string_many(armored).map_err(PgpError::Armor)?;
    let signatures: Result<Vec<_>, _> = signatures.map(|found| found.map(|found| found.signature)).collect();
    signatures.map_err(PgpError::Armor)
}

/// Whether a signature is of a kind and strength that is accepted.
fn acceptable(signature: &Signature) -> Result<(), PgpError> {
    let (version, kind) = (signature.version(), signature.typ());
    let of_data = matches!(kind, Some(SignatureType::Binary | SignatureType::Text));
    let Some(config) = signature.config().filter(|_| of_data && version == SignatureVersion::V4) else {
        return Err(PgpError::Kind { version, kind });
    };
    match config.hash_alg {
        HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512 => {}
        other => {
            // Spelled as in BuildKit.
            let name = other.to_string().replace("SHA1", "SHA-1").replace("SHA2", "SHA-2");
            return Err(PgpError::Hash(name));
        }
    }
    match config.pub_alg {
        PublicKeyAlgorithm::EdDSALegacy
        | PublicKeyAlgorithm::ECDSA
        | PublicKeyAlgorithm::RSA
        | PublicKeyAlgorithm::RSASign => Ok(()),
        other => Err(PgpError::Algorithm(other)),
    }
}

/// A key that may have made a signature.
struct Signer<'a> {
    owner: &'a Certificate,
    /// The primary key if there is none.
    subkey: Option<&'a Subkey>,
}

impl<'a> Signer<'a> {
    /// The keys of `owner` that `signature` says it is by and that may sign.
    fn all(owner: &'a Certificate, signature: &Signature) -> impl Iterator<Item = Self> {
        let id = issuer(signature);
        let keys = std::iter::once(None).chain(owner.subkeys.iter().map(Some));
        keys.map(move |subkey| Self { owner, subkey }).filter(move |signer| {
            Some(signer.key().legacy_key_id()) == id && signer.binding().key_flags().sign()
        })
    }

    fn key(&self) -> &'a dyn KeyDetails {
        match self.subkey {
            None => &self.owner.key,
            Some(subkey) => &subkey.key,
        }
    }

    /// What the owner says of the key.
    fn binding(&self) -> &'a Signature {
        self.subkey.map_or(&self.owner.binding, |subkey| &subkey.binding)
    }

    fn verify(&self, signature: &Signature, data: impl Read) -> pgp::errors::Result<()> {
        match self.subkey {
            None => signature.verify(&self.owner.key, data),
            Some(subkey) => signature.verify(&subkey.key, data),
        }
    }

    /// Whether a signature that the key did make counts.
    fn check(&self, signature: &Signature, policy: Policy) -> Result<(), PgpError> {
        let issuer = Issuer(self.key().legacy_key_id());
        let created = u64::from(signature.created().ok_or(PgpError::Undated)?.as_secs());
        let now = policy.now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if created > now + SKEW.as_secs() {
            let time = i64::try_from(created).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
            return Err(PgpError::Future(time.unwrap_or(jiff::Timestamp::MAX)));
        }
        // A signature of a clock that is ahead is not older than its key.
        let at = if policy.reject_expired { now.max(created) } else { created };
        let owner = self.owner;
        let back = self.subkey.and_then(|subkey| subkey.binding.embedded_signature());
        let statements =
            [Some(signature), Some(&owner.binding), self.subkey.map(|subkey| &subkey.binding), back];
        for statement in statements.into_iter().flatten() {
            if let Some(name) = critical(statement) {
                return Err(PgpError::Critical { issuer, name });
            }
        }
        let of_subkey = self.subkey.is_some_and(|subkey| revoked(&subkey.revocations, at));
        // Once the owner has withdrawn all of it, it does not matter when.
        if !owner.revocations.is_empty() || revoked(&owner.name_revocations, at) || of_subkey {
            return Err(PgpError::Revoked(issuer));
        }
        let ended = |key: &dyn KeyDetails, binding: &Signature| {
            let from = u64::from(key.created_at().as_secs());
            let lifetime = binding.key_expiration_time().map_or(0, |lifetime| u64::from(lifetime.as_secs()));
            from > at || (lifetime != 0 && at > from + lifetime)
        };
        if ended(&owner.key, &owner.binding) || ended(self.key(), self.binding()) {
            return Err(PgpError::KeyExpired(issuer));
        }
        if statements.into_iter().flatten().any(|statement| expired(statement, at)) {
            return Err(PgpError::Expired(issuer));
        }
        [&owner.key as &dyn KeyDetails, self.key()].into_iter().try_for_each(long_enough)
    }
}

/// What a signature calls critical and we know nothing of.
fn critical(signature: &Signature) -> Option<String> {
    let unknown = signature.config()?.hashed_subpackets().filter(|part| part.is_critical);
    unknown.into_iter().find_map(|part| match &part.data {
        SubpacketData::Notation(notation) => Some(String::from_utf8_lossy(&notation.name).into_owned()),
        SubpacketData::Experimental(kind, _) | SubpacketData::Other(kind, _) => {
            Some(format!("subpacket {kind}"))
        }
        _ => None,
    })
}

fn long_enough(key: &dyn KeyDetails) -> Result<(), PgpError> {
    let PublicParams::RSA(params) = key.public_params() else { return Ok(()) };
    // The modulus comes first, and begins with its length in bits (RFC 9580, section 3.2).
    let bytes = params.to_bytes().map_err(KeysError::Block)?;
    let bits = bytes.first_chunk().map_or(0, |length| u16::from_be_bytes(*length));
    if bits < RSA_BITS { Err(PgpError::Short(bits)) } else { Ok(()) }
}
