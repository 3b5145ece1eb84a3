//! SSH signatures (OpenSSH's PROTOCOL.sshsig).

use ssh_key::SshSig;
use ssh_key::authorized_keys::AuthorizedKeys;

/// What git has signed: a signature for another purpose says nothing of a commit.
const NAMESPACE: &str = "git";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// Characters of base64 in a line of a signature, by which the crate insists; others break lines elsewhere.
const LINE: usize = 70;

/// A signature that does not stand up.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// No armor around it.
    #[error("failed to decode ssh signature PEM block")]
    Armor,
    /// Not a signature, or one by a hash or an algorithm that is unknown.
    #[error("failed to parse ssh signature")]
    Signature(#[source] ssh_key::Error),
    /// Of another format.
    #[error("unsupported SSH signature version: {0}")]
    Version(u32),
    /// For another purpose.
    #[error("unexpected SSH signature namespace: {0:?}")]
    Namespace(String),
    /// No key to verify it by.
    #[error("failed to parse ssh public key: ssh: no key found")]
    Key,
    /// Of other data, or by another key.
    #[error("failed to verify ssh signature")]
    Mismatch(#[source] ssh_key::Error),
}

/// Checks that the owner of the first of `keys` signed `data` for git. `keys` are lines as in `authorized_keys`.
///
/// # Errors
/// What does not stand up.
pub(super) fn verify(data: &[u8], signature: &str, keys: &str) -> Result<(), SshError> {
    let signature = SshSig::from_pem(rewrapped(signature)?).map_err(SshError::Signature)?;
    if signature.version() != SshSig::VERSION {
        return Err(SshError::Version(signature.version()));
    }
    if signature.namespace() != NAMESPACE {
        return Err(SshError::Namespace(signature.namespace().to_owned()));
    }
    let key = AuthorizedKeys::new(keys).find_map(Result::ok).ok_or(SshError::Key)?;
    key.public_key().verify(NAMESPACE, data, &signature).map_err(SshError::Mismatch)
}

/// The armor with lines of the length that the crate wants.
fn rewrapped(signature: &str) -> Result<String, SshError> {
    let body = signature.trim().strip_prefix(BEGIN).and_then(|rest| rest.split_once(END));
    let (body, _) = body.ok_or(SshError::Armor)?;
    let text: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let mut armor = BEGIN.to_owned();
    for line in text.chunks(LINE) {
        armor.push('\n');
        armor.push_str(std::str::from_utf8(line).map_err(|_| SshError::Armor)?);
    }
    Ok(format!("{armor}\n{END}\n"))
}
