//! Results on the wire: references, and metadata under BuildKit's names.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use frontend::config::ImageConfig;
use proto::gateway::result::Result as Refs;
use proto::gateway::{
    Attestation, Attestations, Ref, RefMap, RefMapDeprecated, Result as WireResult, SolveRequest,
    SolveResponse,
};
use solver::op::Platform;
use tonic::Code;

use super::bridge::{Bridge, Reference};
use crate::daemon::claims::Claim;
use crate::daemon::failure::Failure;
use crate::daemon::metadata::{Metadata, NamedPlatform};
use crate::daemon::plan::Plan;

/// The answer of a frontend that built nothing.
pub(super) fn answer(request: &SolveRequest, texts: BTreeMap<String, String>) -> SolveResponse {
    let metadata = texts.into_iter().map(|(key, text)| (key, Bytes::from(text))).collect();
    let refs = match request.allow_result_array_ref {
        true => Refs::Ref(Ref::default()),
        false => Refs::RefDeprecated(String::new()),
    };
    let result = WireResult { result: Some(refs), metadata, ..WireResult::default() };
    SolveResponse { r#ref: String::new(), result: Some(result) }
}

/// References to what was planned; `ids` are those of the plan's parts, `claims` what is said of these.
///
/// # Errors
/// An old client that takes one reference only, where there are several.
pub(super) fn response(
    request: &SolveRequest,
    plan: &Plan,
    ids: &[String],
    claims: Vec<Vec<Claim<Ref>>>,
) -> Result<SolveResponse, Failure> {
    let named: Vec<NamedPlatform> =
        plan.parts.iter().map(|part| NamedPlatform::new(part.platform.clone())).collect();
    let mut metadata = plan.metadata.clone();
    for (part, named) in plan.parts.iter().zip(&named) {
        let id = plan.multi_platform.then_some(&named.id[..]);
        metadata.set(id, part.config.as_ref(), part.epoch)?;
    }
    if plan.parts.iter().any(|part| part.config.is_some()) {
        metadata.set_platforms(named.clone())?;
    }
    let first = ids.first().cloned().unwrap_or_default();
    if plan.multi_platform && !request.allow_result_return {
        return Err(Failure::new(Code::InvalidArgument, "the result has several references"));
    }
    let reference =
        |i: usize| Ref { id: ids[i].clone(), def: Some(crate::llb::to_definition(&plan.parts[i].graph)) };
    let names = || named.iter().map(|n| n.id.clone()).enumerate();
    let refs = match (plan.multi_platform, request.allow_result_array_ref) {
        (true, true) => Refs::Refs(RefMap { refs: names().map(|(i, name)| (name, reference(i))).collect() }),
        (true, false) => Refs::RefsDeprecated(RefMapDeprecated {
            refs: names().map(|(i, name)| (name, ids[i].clone())).collect(),
        }),
        (false, true) if ids.is_empty() => Refs::Ref(Ref::default()),
        (false, true) => Refs::Ref(reference(0)),
        (false, false) => Refs::RefDeprecated(first.clone()),
    };
    let attestations = named.iter().zip(claims).filter(|(_, claims)| !claims.is_empty());
    let attestations = attestations.map(|(named, claims)| {
        let attestation = claims.into_iter().map(Claim::message).collect();
        (named.id.clone(), Attestations { attestation })
    });
    let (attestations, metadata) = (attestations.collect(), metadata.into_inner());
    let result = WireResult { result: Some(refs), metadata, attestations };
    let old = if request.allow_result_return { String::new() } else { first };
    Ok(SolveResponse { r#ref: old, result: Some(result) })
}

/// What a client returned.
#[derive(Debug, Clone)]
pub(super) struct Returned {
    /// One per platform.
    pub(super) parts: Vec<ReturnedPart>,
    /// The result is an index, even of one platform.
    pub(super) multi_platform: bool,
    /// All that came with the references.
    pub(super) metadata: Metadata,
}

/// One platform's result.
#[derive(Debug, Clone)]
pub(super) struct ReturnedPart {
    pub(super) platform: Platform,
    /// `None` is scratch.
    pub(super) reference: Option<Arc<Reference>>,
    pub(super) config: Option<ImageConfig>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub(super) epoch: Option<i64>,
    /// So many entries of the config's history are those of the image that it is built on.
    pub(super) inherited: usize,
    /// What else is said of it.
    pub(super) claims: Vec<Claim<Option<Arc<Reference>>>>,
}

impl Returned {
    /// Reads a result whose references are those of `bridge`.
    ///
    /// # Errors
    /// Unknown references, metadata that cannot be read or does not fit them.
    pub(super) fn read(bridge: &Bridge, result: WireResult) -> Result<Self, Failure> {
        let metadata = Metadata::from(result.metadata);
        let find = |id: &str| bridge.reference(id);
        let mut claims = Claims { bridge, all: result.attestations };
        let (single, many) = match result.result {
            None => (None, None),
            Some(Refs::Ref(r)) => (find(&r.id)?, None),
            Some(Refs::RefDeprecated(id)) => (find(&id)?, None),
            Some(Refs::Refs(map)) => {
                let all = map.refs.into_iter().map(|(name, r)| (name, r.id)).collect();
                (None, Some(all))
            }
            Some(Refs::RefsDeprecated(map)) => (None, Some(map.refs)),
        };
        let Some(many) = many else { return Self::single(single, metadata, &mut claims) };
        let many: BTreeMap<String, String> = many;
        let mut parts = Vec::new();
        for named in metadata.platforms()? {
            let id = many.get(&named.id).ok_or_else(|| {
                Failure::new(Code::InvalidArgument, format!("failed to find ref {}", named.id))
            })?;
            parts.push(ReturnedPart::read(&metadata, named, find(id)?, &mut claims)?);
        }
        Ok(Self { parts, multi_platform: true, metadata })
    }

    fn single(
        reference: Option<Arc<Reference>>,
        metadata: Metadata,
        claims: &mut Claims<'_>,
    ) -> Result<Self, Failure> {
        let mut named = metadata.platforms()?;
        if named.len() > 1 {
            return Err(Failure::new(
                Code::InvalidArgument,
                format!("number of platforms does not match references: {} 1", named.len()),
            ));
        }
        let part = named.pop().map(|named| ReturnedPart::read(&metadata, named, reference, claims));
        let part = part.transpose()?;
        let parts = part.into_iter().filter(|p| p.reference.is_some() || p.config.is_some()).collect();
        Ok(Self { parts, multi_platform: false, metadata })
    }
}

/// The claims that come with a result, by the names of its references.
struct Claims<'a> {
    bridge: &'a Bridge,
    all: BTreeMap<String, Attestations>,
}

impl Claims<'_> {
    fn of(&mut self, id: &str) -> Result<Vec<Claim<Option<Arc<Reference>>>>, Failure> {
        let claims = self.all.remove(id).unwrap_or_default().attestation;
        let read = |claim: Attestation| {
            let id = claim.r#ref.as_ref().map_or("", |reference| &reference.id);
            let files = self.bridge.reference(id)?;
            Claim::read(claim, files)
        };
        claims.into_iter().map(read).collect()
    }
}

impl ReturnedPart {
    fn read(
        metadata: &Metadata,
        named: NamedPlatform,
        reference: Option<Arc<Reference>>,
        claims: &mut Claims<'_>,
    ) -> Result<Self, Failure> {
        let config = metadata.config(&named.id)?;
        let epoch = metadata.epoch(&named.id)?.or_else(|| reference.as_ref()?.epoch);
        let told = config.as_ref().map(|config| metadata.inherited(&named.id, config)).transpose()?.flatten();
        let inherited = told.or_else(|| Some(reference.as_ref()?.inherited)).unwrap_or_default();
        let claims = claims.of(&named.id)?;
        Ok(Self { platform: named.platform, reference, config, epoch, inherited, claims })
    }
}
