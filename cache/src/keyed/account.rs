//! What a project's latest build was keyed on, as machines share it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use solver::Digest;

use super::record::SharedBlob;
use super::scope::Scope;
use super::seal::{Unacceptable, open, said, seal};
use super::signature::{Signer, Trust};

/// Where the account of a project's latest build is. The latest writer's counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedAccount {
    /// Which project.
    pub project: Digest,
    /// Of all that it is an account of: of builds with equal states it need not be written again.
    pub state: Digest,
    /// When it was written, in milliseconds since 1970.
    pub written_ms: u64,
    /// The account itself.
    pub body: SharedBlob,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Said {
    scope: String,
    project: Digest,
    state: Digest,
    written_ms: u64,
    body: SharedBlob,
}

/// The blob that a sealed account names, whoever sealed it; none of what is no account.
pub(super) fn blobs_in(bytes: &[u8]) -> BTreeSet<SharedBlob> {
    said::<Said>(bytes).map(|said| said.body).into_iter().collect()
}

impl SharedAccount {
    /// The bytes that are written, as those of a record ([`super::SharedRecord::seal`]).
    pub fn seal(&self, scope: &Scope, signer: Option<&Signer>) -> Vec<u8> {
        let Self { project, state, written_ms, body } = self.clone();
        seal(&Said { scope: scope.to_string(), project, state, written_ms, body }, signer)
    }

    /// Reads what [`Self::seal`] gave for this project and scope.
    ///
    /// # Errors
    /// Any other bytes; accounts that `trust` does not accept.
    pub fn open(bytes: &[u8], project: &Digest, scope: &Scope, trust: &Trust) -> Result<Self, Unacceptable> {
        let fits = |said: &Said| said.project == *project && said.scope == scope.as_str();
        let Said { project, state, written_ms, body, .. } = open(bytes, fits, trust)?;
        Ok(Self { project, state, written_ms, body })
    }
}

#[cfg(test)]
mod tests {
    use super::super::signature::tests::{PRIVATE, PUBLIC};
    use super::*;

    #[test]
    fn sealed_and_opened() {
        let body = SharedBlob {
            digest: Digest::of(b"body"),
            size: 4,
            media_type: "application/octet-stream".to_owned(),
        };
        let (project, state) = (Digest::of(b"project"), Digest::of(b"state"));
        let account = SharedAccount { project, state, written_ms: 7, body: body.clone() };
        let (scope, signer) = (Scope::default(), Signer::from_pem(PRIVATE).unwrap());
        let (lax, strict) = (Trust::default(), Trust::only([PUBLIC]).unwrap());
        let bytes = account.seal(&scope, Some(&signer));
        assert_eq!(SharedAccount::open(&bytes, &project, &scope, &strict), Ok(account.clone()));
        assert_eq!(super::super::blobs_in(&bytes), BTreeSet::from([body]));
        let (other, pr) = (Digest::of(b"other"), "pr".parse().unwrap());
        assert_eq!(SharedAccount::open(&bytes, &other, &scope, &lax), Err(Unacceptable::Damaged));
        assert_eq!(SharedAccount::open(&bytes, &project, &pr, &lax), Err(Unacceptable::Damaged));
        let unsigned = account.seal(&scope, None);
        assert_eq!(SharedAccount::open(&unsigned, &project, &scope, &strict), Err(Unacceptable::Untrusted));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(SharedAccount::open(&flipped, &project, &scope, &strict).is_err(), "byte {at}");
        }
    }
}
