//! Claims: what frontends and scanners say of a result in files of their own, until an exporter makes statements of it.

mod told;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proto::gateway::{AttestationKind, InTotoSubject, InTotoSubjectKind};
use solver::Graph;
use tonic::Code;

use super::failure::Failure;
pub(super) use told::{Told, told};

/// The type of what an SBOM says (<https://spdx.dev>).
pub(super) const SPDX: &str = "https://spdx.dev/Document";

/// How the types of provenance begin, which is what this daemon says itself.
pub(super) const PROVENANCE: &str = "https://slsa.dev/provenance/";

/// Metadata of a claim: it goes with images only.
const INLINE_ONLY: &str = "inline-only";
/// Metadata of an SBOM: the name of the file about the result itself, without its extension.
const SBOM_CORE: &str = "sbom-core";

/// A claim whose files are `F`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim<F> {
    /// How the files are to be read.
    pub kind: ClaimKind,
    /// Where it is written down.
    pub files: F,
    /// The file or the directory.
    pub path: String,
    /// What kind of predicate it holds; of a bundle empty where its statements say it.
    pub predicate_type: String,
    /// What it is about; nothing is the result.
    pub subjects: Vec<Subject>,
    /// What exporters are told besides.
    pub metadata: BTreeMap<String, Bytes>,
}

/// How a claim is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimKind {
    /// A file holds the predicate.
    Predicate,
    /// Each file of a directory holds a statement.
    Bundle,
}

/// What a claim is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// Empty: none of its own.
    pub name: String,
    /// Its digests by algorithm; `None` where it is the result.
    pub digests: Option<BTreeMap<String, String>>,
}

/// What an SBOM of a result is to cover besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scans {
    /// By name.
    pub extras: Vec<(String, Graph)>,
    /// It is made again whatever the cache holds.
    pub ignore_cache: bool,
}

impl<F> Claim<F> {
    /// What is in an SBOM that a scanner wrote into files.
    pub(super) fn sbom(files: F) -> Self {
        let metadata = [("reason", "sbom"), (SBOM_CORE, "sbom")];
        Self {
            kind: ClaimKind::Bundle,
            files,
            path: String::new(),
            predicate_type: SPDX.to_owned(),
            subjects: Vec::new(),
            metadata: metadata.map(|(name, value)| (name.to_owned(), Bytes::from(value))).into(),
        }
    }

    /// The same in other files.
    pub(super) fn with<G>(&self, files: G) -> Claim<G> {
        Claim {
            kind: self.kind,
            files,
            path: self.path.clone(),
            predicate_type: self.predicate_type.clone(),
            subjects: self.subjects.clone(),
            metadata: self.metadata.clone(),
        }
    }

    /// Whether it goes with images only.
    pub(super) fn inline_only(&self) -> bool {
        self.metadata.get(INLINE_ONLY).is_some_and(|value| value == "true")
    }

    /// Reads one that a client sends.
    ///
    /// # Errors
    /// A kind or a digest that cannot be.
    pub(super) fn read(message: proto::gateway::Attestation, files: F) -> Result<Self, Failure> {
        let kind = match AttestationKind::try_from(message.kind) {
            Ok(AttestationKind::InToto) => ClaimKind::Predicate,
            Ok(AttestationKind::Bundle) => ClaimKind::Bundle,
            Err(_) => return Err(invalid(format!("unknown attestation kind {}", message.kind))),
        };
        Ok(Self {
            kind,
            files,
            path: message.path,
            predicate_type: message.in_toto_predicate_type,
            subjects: message.in_toto_subjects.into_iter().map(subject).collect::<Result<_, _>>()?,
            metadata: message.metadata,
        })
    }
}

impl Claim<proto::gateway::Ref> {
    /// As it is sent to a client.
    pub(super) fn message(self) -> proto::gateway::Attestation {
        let kind = match self.kind {
            ClaimKind::Predicate => AttestationKind::InToto,
            ClaimKind::Bundle => AttestationKind::Bundle,
        };
        let subject = |subject: Subject| {
            let kind = match subject.digests {
                None => InTotoSubjectKind::Self_,
                Some(_) => InTotoSubjectKind::Raw,
            };
            let digests = subject.digests.unwrap_or_default();
            InTotoSubject {
                kind: kind.into(),
                digest: digests.into_iter().map(|(algorithm, hex)| format!("{algorithm}:{hex}")).collect(),
                name: subject.name,
            }
        };
        proto::gateway::Attestation {
            kind: kind.into(),
            metadata: self.metadata,
            r#ref: Some(self.files),
            path: self.path,
            in_toto_predicate_type: self.predicate_type,
            in_toto_subjects: self.subjects.into_iter().map(subject).collect(),
        }
    }
}

fn subject(message: InTotoSubject) -> Result<Subject, Failure> {
    let digest = |text: &String| match text.split_once(':') {
        Some((algorithm, hex)) => Ok((algorithm.to_owned(), hex.to_owned())),
        None => Err(invalid(format!("invalid digest {text:?} of an attestation's subject"))),
    };
    let digests = match InTotoSubjectKind::try_from(message.kind) {
        Ok(InTotoSubjectKind::Self_) => None,
        Ok(InTotoSubjectKind::Raw) => Some(message.digest.iter().map(digest).collect::<Result<_, _>>()?),
        Err(_) => return Err(invalid(format!("unknown attestation subject type {}", message.kind))),
    };
    Ok(Subject { name: message.name, digests })
}

fn invalid(message: String) -> Failure {
    Failure::new(Code::InvalidArgument, message)
}

/// What a plan says of a result: the files of its claims are still to be made.
pub(super) type Planned = Claim<Option<Arc<Graph>>>;

#[cfg(test)]
mod tests {
    use proto::gateway::{Attestation, Ref};

    use super::*;

    #[test]
    fn messages() {
        let subject = |kind: InTotoSubjectKind, digest: &[&str]| InTotoSubject {
            kind: kind.into(),
            digest: digest.iter().map(|&d| d.to_owned()).collect(),
            name: "n".to_owned(),
        };
        let message = Attestation {
            kind: AttestationKind::Bundle.into(),
            metadata: [("inline-only".to_owned(), Bytes::from("true"))].into(),
            r#ref: Some(Ref { id: "1".to_owned(), def: None }),
            path: "/p".to_owned(),
            in_toto_predicate_type: SPDX.to_owned(),
            in_toto_subjects: vec![
                subject(InTotoSubjectKind::Self_, &[]),
                subject(InTotoSubjectKind::Raw, &["sha256:ab"]),
            ],
        };
        let read = |message: &Attestation| Claim::read(message.clone(), message.r#ref.clone().unwrap());
        let claim = read(&message).unwrap();
        assert!(claim.inline_only());
        assert_eq!(claim.message(), message);
        for bad in [
            Attestation { kind: 7, ..message.clone() },
            Attestation {
                in_toto_subjects: vec![subject(InTotoSubjectKind::Raw, &["ab"])],
                ..message.clone()
            },
        ] {
            assert_eq!(read(&bad).unwrap_err().code, Code::InvalidArgument);
        }
    }
}
