//! Who has to have signed a file.

use std::time::SystemTime;

use cache::store::Store;
use solver::digest::Hasher;
use solver::op::{SourceOp, attr};
use solver::{Digest, ExecError};

use crate::daemon::blocking::blocking;
use crate::signatures::pgp::{self, PgpError, Policy};

/// The attributes that say it.
pub(in crate::daemon::sources) const ATTRS: [&str; 2] = [attr::HTTP_SIG_PUBKEY, attr::HTTP_SIG_SIGNATURE];

/// Who has to have signed a file.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    /// OpenPGP keys in their armor, one after the other.
    keys: String,
    /// In its armor.
    signature: String,
}

/// It is not known who signed it, or nobody did.
#[derive(Debug, thiserror::Error)]
enum SignerError {
    #[error("http signature verification requires both pubkey and signature")]
    Half,
    #[error("failed to verify pgp signature")]
    Unverified(#[source] PgpError),
}

impl Signer {
    /// # Errors
    /// A key without a signature, or a signature without a key.
    pub(super) fn new(op: &SourceOp) -> Result<Option<Self>, ExecError> {
        if !ATTRS.iter().any(|name| op.attrs.contains_key(*name)) {
            return Ok(None);
        }
        let text = |name: &str| op.attrs.get(name).cloned().unwrap_or_default();
        let signer = Self { keys: text(attr::HTTP_SIG_PUBKEY), signature: text(attr::HTTP_SIG_SIGNATURE) };
        match signer.keys.is_empty() == signer.signature.is_empty() {
            true => Ok(Some(signer)),
            false => Err(ExecError::failed(SignerError::Half)),
        }
    }

    /// Tells it from others.
    pub(super) fn id(&self) -> Digest {
        let mut h = Hasher::new("rbuild.source.http.signer");
        h.str(&self.keys).str(&self.signature);
        h.finish()
    }

    /// Refuses a file of the store that was not signed so.
    pub(super) async fn verify(self, store: &Store, body: Digest) -> Result<(), ExecError> {
        let store = store.clone();
        let verdict = blocking(move || {
            let policy = Policy { reject_expired: false, now: SystemTime::now() };
            let open = || store.blobs().open(&body).map_err(std::io::Error::other);
            pgp::verify(&self.signature, &self.keys, policy, open)
        });
        verdict.await.map_err(|why| ExecError::failed(SignerError::Unverified(why)))
    }
}
