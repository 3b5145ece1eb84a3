//! What is shared and has to be believed, in two lines: one that says it, and one with the digest of that and a signature.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use solver::Digest;

use super::signature::{Signer, Trust};

/// Something that is not to be gone by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// It is not what was written under this name.
    #[error("it is damaged")]
    Damaged,
    /// Nobody who is trusted has signed it.
    #[error("nobody who is trusted has signed it")]
    Untrusted,
}

/// The second line.
#[derive(Serialize, Deserialize)]
struct Seal {
    digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// The two lines. The text of the first is what is hashed and, where `signer` is given, signed.
pub(super) fn seal<T: Serialize>(said: &T, signer: Option<&Signer>) -> Vec<u8> {
    // Plain data: nothing of it can fail to be JSON.
    let mut bytes = serde_json::to_vec(said).unwrap_or_default();
    let seal = Seal {
        digest: Digest::of(&bytes),
        key: signer.map(Signer::public),
        signature: signer.map(|signer| signer.sign(&bytes)),
    };
    bytes.push(b'\n');
    bytes.extend(serde_json::to_vec(&seal).unwrap_or_default());
    bytes.push(b'\n');
    bytes
}

/// Reads what [`seal`] gave; `fits` tells whether it is what was asked for.
///
/// # Errors
/// Any other bytes; what `trust` does not accept.
pub(super) fn open<T: DeserializeOwned>(
    bytes: &[u8],
    fits: impl FnOnce(&T) -> bool,
    trust: &Trust,
) -> Result<T, Unacceptable> {
    let damaged = |_| Unacceptable::Damaged;
    let text = std::str::from_utf8(bytes).map_err(|_| Unacceptable::Damaged)?;
    let lines = text.strip_suffix('\n').and_then(|text| text.split_once('\n'));
    let (first, second) = lines.ok_or(Unacceptable::Damaged)?;
    let seal: Seal = serde_json::from_str(second).map_err(damaged)?;
    if seal.digest != Digest::of(first.as_bytes()) {
        return Err(Unacceptable::Damaged);
    }
    let said: T = serde_json::from_str(first).map_err(damaged)?;
    if !fits(&said) {
        return Err(Unacceptable::Damaged);
    }
    let signed = seal.key.as_deref().zip(seal.signature.as_deref());
    if !trust.accepts(first.as_bytes(), signed) {
        return Err(Unacceptable::Untrusted);
    }
    Ok(said)
}

/// What the first line says, whoever sealed it for whatever name; `None` of what is something else.
pub(super) fn said<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(first).ok()
}
