//! What claims say, read from their files.

use std::collections::BTreeMap;

use cache::tree::{Follow, TreePath};
use cache::view::{MergedView, ViewError};
use serde::Deserialize;
use serde_json::{Map, Value};
use solver::{Digest, ExecError, Output};

use super::{Claim, ClaimKind, PROVENANCE, SBOM_CORE, SPDX, Subject};
use crate::daemon::about;
use crate::daemon::chains::Chains;
use crate::daemon::provenance::{About, Statement};

/// A larger statement is not read, in bytes.
const LIMIT: u64 = 40 << 20;

/// What a claim says.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::daemon) struct Told {
    /// What kind of predicate it is.
    pub predicate_type: String,
    /// What it says.
    pub predicate: Value,
    /// The last part of its file's path.
    pub name: String,
    subjects: Vec<Subject>,
    core: bool,
}

/// A claim that cannot be made a statement of.
#[derive(Debug, thiserror::Error)]
enum ClaimError {
    #[error("attestation does not have set path")]
    NoPath,
    #[error("attestation does not have available content")]
    NoFiles,
    #[error("frontend may not set provenance attestations")]
    Provenance,
    #[error("frontend may not bundle provenance attestations")]
    BundledProvenance,
    #[error("bundle entry {found} does not match required predicate type {wanted}")]
    OtherType { found: String, wanted: String },
    #[error("cannot read in-toto attestation: open {0}: no such file or directory")]
    Missing(String),
    #[error("cannot read in-toto attestation: {path}")]
    Unreadable {
        path: String,
        #[source]
        source: ViewError,
    },
    #[error("cannot decode in-toto statement: {path}")]
    Malformed {
        path: String,
        #[source]
        source: serde_json::Error,
    },
}

/// A statement in a file of a bundle.
#[derive(Deserialize)]
struct StatementJson {
    #[serde(rename = "predicateType", default)]
    predicate_type: String,
    #[serde(default)]
    predicate: Value,
    #[serde(default)]
    subject: Option<Vec<SubjectJson>>,
}

#[derive(Deserialize)]
struct SubjectJson {
    #[serde(default)]
    name: String,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

/// What claims say, SBOMs of results first. Blocking.
///
/// # Errors
/// Files that are missing, too large or malformed; provenance, which no frontend can know.
pub(in crate::daemon) fn told(
    chains: &Chains,
    claims: &[Claim<Option<Output>>],
) -> Result<Vec<Told>, ExecError> {
    let mut all = Vec::new();
    for claim in claims {
        let files = claim.files.as_ref().ok_or_else(|| ExecError::failed(ClaimError::NoFiles))?;
        let view = chains.base(files)?.view;
        match claim.kind {
            ClaimKind::Predicate => all.push(predicate(&view, claim)),
            ClaimKind::Bundle => match bundle(&view, claim) {
                Ok(bundle) => all.extend(bundle.into_iter().map(Ok)),
                Err(e) => all.push(Err(e)),
            },
        }
    }
    let mut all = all.into_iter().collect::<Result<Vec<_>, _>>().map_err(ExecError::failed)?;
    all.sort_by_key(|told| !told.core);
    Ok(all)
}

impl Told {
    /// What the daemon itself found in a result, or (not `core`) in something that the result was made of.
    pub(in crate::daemon) fn sbom(name: &str, predicate: Value, core: bool) -> Self {
        Self {
            predicate_type: SPDX.to_owned(),
            predicate,
            name: format!("{name}.spdx.json"),
            subjects: Vec::new(),
            core,
        }
    }

    /// Adds to an SBOM of an image which of its `layers` have the files that it lists, as BuildKit does.
    pub(in crate::daemon) fn supplement(&mut self, view: &MergedView, layers: &[Digest]) {
        let is_sbom = self.core && self.predicate_type == SPDX && self.predicate["spdxVersion"].is_string();
        let Some(document) = self.predicate.as_object_mut().filter(|_| is_sbom) else { return };
        for file in document.get_mut("files").and_then(Value::as_array_mut).into_iter().flatten() {
            // What the scanner says itself stays.
            let commented = file["comment"].as_str().is_some_and(|text| !text.is_empty());
            let path = file["fileName"].as_str().map(|name| TreePath::clean(name.as_bytes()));
            let found = path.and_then(|path| view.get(&path.ok()?).ok().flatten());
            if let Some(layer) = found.filter(|_| !commented).and_then(|found| layers.get(found.layer)) {
                file["comment"] = format!("layerID: {layer}").into();
            }
        }
        let info = document.entry("creationInfo").or_insert_with(|| Value::Object(Map::new()));
        let creators = info
            .as_object_mut()
            .map(|info| info.entry("creators").or_insert_with(|| Value::Array(Vec::new())));
        if let Some(creators) = creators.and_then(Value::as_array_mut) {
            creators.push(format!("Tool: buildkit-{}", about::version().version).into());
        }
    }

    /// The statement; `about` is the result.
    pub(in crate::daemon) fn statement(&self, about: &[About]) -> Statement {
        let itself = [Subject { name: String::new(), digests: None }];
        let subjects = if self.subjects.is_empty() { &itself[..] } else { &self.subjects };
        let mut named = Vec::new();
        for subject in subjects {
            match &subject.digests {
                Some(digests) => {
                    let name = if subject.name.is_empty() { "_" } else { &subject.name };
                    named.push(About { name: name.to_owned(), digests: digests.clone() });
                }
                None => {
                    for result in about {
                        named.push(result.clone());
                        if !subject.name.is_empty() {
                            named.push(About { name: subject.name.clone(), ..result.clone() });
                        }
                    }
                }
            }
        }
        Statement {
            predicate_type: self.predicate_type.clone(),
            predicate: self.predicate.clone(),
            subjects: named,
        }
    }
}

fn predicate(view: &MergedView, claim: &Claim<Option<Output>>) -> Result<Told, ClaimError> {
    if claim.path.is_empty() {
        return Err(ClaimError::NoPath);
    }
    if claim.predicate_type.starts_with(PROVENANCE) {
        return Err(ClaimError::Provenance);
    }
    let bytes = read(view, &claim.path)?;
    let predicate = match bytes.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&bytes)
            .map_err(|source| ClaimError::Malformed { path: claim.path.clone(), source })?,
    };
    Ok(Told {
        predicate_type: claim.predicate_type.clone(),
        predicate,
        name: last_part(&claim.path).to_owned(),
        subjects: claim.subjects.clone(),
        core: is_core(claim, &claim.path),
    })
}

fn bundle(view: &MergedView, claim: &Claim<Option<Output>>) -> Result<Vec<Told>, ClaimError> {
    let unreadable = |source| ClaimError::Unreadable { path: claim.path.clone(), source };
    let dir = view.resolve(claim.path.as_bytes(), Follow::Last).map_err(unreadable)?;
    let dir = dir.ok_or_else(|| ClaimError::Missing(claim.path.clone()))?;
    let mut all = Vec::new();
    for item in view.list(&dir.path).map_err(unreadable)? {
        let name = String::from_utf8_lossy(item.name.as_ref()).into_owned();
        let path = format!("{}/{name}", claim.path.trim_end_matches('/'));
        let statement: StatementJson = serde_json::from_slice(&read(view, &path)?)
            .map_err(|source| ClaimError::Malformed { path: path.clone(), source })?;
        let (found, wanted) = (statement.predicate_type, &claim.predicate_type);
        if !wanted.is_empty() && found != *wanted {
            return Err(ClaimError::OtherType { found, wanted: wanted.clone() });
        }
        if found.starts_with(PROVENANCE) {
            return Err(ClaimError::BundledProvenance);
        }
        let subject = |s: SubjectJson| Subject { name: s.name, digests: Some(s.digest) };
        all.push(Told {
            predicate_type: found,
            predicate: statement.predicate,
            core: is_core(claim, &path),
            name,
            subjects: statement.subject.unwrap_or_default().into_iter().map(subject).collect(),
        });
    }
    Ok(all)
}

fn read(view: &MergedView, path: &str) -> Result<Vec<u8>, ClaimError> {
    let found = view.read_small(path.as_bytes(), LIMIT);
    let found = found.map_err(|source| ClaimError::Unreadable { path: path.to_owned(), source })?;
    found.ok_or_else(|| ClaimError::Missing(path.to_owned()))
}

fn last_part(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Whether a file is the SBOM of the result itself.
fn is_core(claim: &Claim<Option<Output>>, path: &str) -> bool {
    let stem = last_part(path).split('.').next().unwrap_or_default();
    claim.metadata.get(SBOM_CORE).is_some_and(|core| core == stem)
}
