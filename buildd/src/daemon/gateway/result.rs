//! Results on the wire: references, and metadata under BuildKit's names.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use frontend::config::ImageConfig;
use proto::gateway::result::Result as Refs;
use proto::gateway::{Ref, RefMap, RefMapDeprecated, Result as WireResult, SolveRequest, SolveResponse};
use serde::{Deserialize, Serialize};
use solver::op::Platform;
use tonic::Code;

use super::bridge::{Bridge, Reference};
use crate::daemon::failure::Failure;
use crate::daemon::plan::Plan;
use crate::daemon::sources::image::{host_platform, oci_platform};

/// The image's config; with `/ID` that of one platform.
const CONFIG: &str = "containerimage.config";
/// The platforms of the result, as JSON.
const PLATFORMS: &str = "refs.platforms";

/// `SOURCE_DATE_EPOCH`, in seconds since 1970; with `/ID` that of one platform.
const EPOCH: &str = "source.date.epoch";

/// [`PLATFORMS`].
#[derive(Debug, Default, Serialize, Deserialize)]
struct Platforms {
    #[serde(rename = "Platforms", default)]
    platforms: Vec<NamedPlatform>,
}

/// A platform and the name of its reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct NamedPlatform {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: Platform,
}

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

/// References to what was planned; `ids` are those of the plan's parts.
///
/// # Errors
/// An old client that takes one reference only, where there are several.
pub(super) fn response(
    request: &SolveRequest,
    plan: &Plan,
    ids: &[String],
) -> Result<SolveResponse, Failure> {
    let named: Vec<NamedPlatform> = plan
        .parts
        .iter()
        .map(|p| NamedPlatform { id: oci_platform(&p.platform).full(), platform: p.platform.clone() })
        .collect();
    let mut metadata = BTreeMap::new();
    for (part, named) in plan.parts.iter().zip(&named) {
        if let Some(epoch) = part.epoch {
            let key = if plan.multi_platform { format!("{EPOCH}/{}", named.id) } else { EPOCH.to_owned() };
            metadata.insert(key, Bytes::from(epoch.to_string()));
        }
        let Some(config) = &part.config else { continue };
        let json = serde_json::to_vec(config).map_err(|e| Failure::invalid(&e))?;
        let key = if plan.multi_platform { format!("{CONFIG}/{}", named.id) } else { CONFIG.to_owned() };
        metadata.insert(key, Bytes::from(json));
    }
    if plan.parts.iter().any(|part| part.config.is_some()) {
        let json =
            serde_json::to_vec(&Platforms { platforms: named.clone() }).map_err(|e| Failure::invalid(&e))?;
        metadata.insert(PLATFORMS.to_owned(), Bytes::from(json));
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
    let result = WireResult { result: Some(refs), metadata, ..WireResult::default() };
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
    pub(super) metadata: BTreeMap<String, Bytes>,
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
}

impl Returned {
    /// Reads a result whose references are those of `bridge`.
    ///
    /// # Errors
    /// Unknown references, metadata that cannot be read or does not fit them.
    pub(super) fn read(bridge: &Bridge, result: WireResult) -> Result<Self, Failure> {
        let metadata = result.metadata;
        let find = |id: &str| bridge.reference(id);
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
        let Some(many) = many else { return Self::single(single, metadata) };
        let many: BTreeMap<String, String> = many;
        let mut parts = Vec::new();
        for named in platforms(&metadata)? {
            let id = many.get(&named.id).ok_or_else(|| {
                Failure::new(Code::InvalidArgument, format!("failed to find ref {}", named.id))
            })?;
            let config = config(&metadata, &named.id)?;
            let epoch = epoch(&metadata, &named.id)?;
            parts.push(ReturnedPart { platform: named.platform, reference: find(id)?, config, epoch });
        }
        Ok(Self { parts, multi_platform: true, metadata })
    }

    fn single(reference: Option<Arc<Reference>>, metadata: BTreeMap<String, Bytes>) -> Result<Self, Failure> {
        let mut named = platforms(&metadata)?;
        if named.len() > 1 {
            return Err(Failure::new(
                Code::InvalidArgument,
                format!("number of platforms does not match references: {} 1", named.len()),
            ));
        }
        let Some(named) = named.pop() else {
            return Ok(Self { parts: Vec::new(), multi_platform: false, metadata });
        };
        let config = config(&metadata, &named.id)?;
        let parts = match (&reference, &config) {
            (None, None) => Vec::new(),
            _ => {
                let epoch = epoch(&metadata, &named.id)?;
                vec![ReturnedPart { platform: named.platform, reference, config, epoch }]
            }
        };
        Ok(Self { parts, multi_platform: false, metadata })
    }
}

/// The platforms that metadata names; without them the config's, else this machine's.
fn platforms(metadata: &BTreeMap<String, Bytes>) -> Result<Vec<NamedPlatform>, Failure> {
    if let Some(json) = metadata.get(PLATFORMS) {
        let listed: Platforms = serde_json::from_slice(json)
            .map_err(|e| Failure::new(Code::InvalidArgument, format!("invalid `{PLATFORMS}`: {e}")))?;
        let bad = |n: &NamedPlatform| {
            n.id.is_empty() || n.platform.os.is_empty() || n.platform.architecture.is_empty()
        };
        return match listed.platforms.is_empty() || listed.platforms.iter().any(bad) {
            true => Err(Failure::new(
                Code::InvalidArgument,
                format!("invalid `{PLATFORMS}`: a platform is empty"),
            )),
            false => Ok(listed.platforms),
        };
    }
    let of_config = config(metadata, "")?.map(|c| c.platform());
    let platform = of_config.filter(|p| !p.os.is_empty() && !p.architecture.is_empty());
    let platform = platform.unwrap_or_else(host_platform);
    Ok(vec![NamedPlatform { id: oci_platform(&platform).full(), platform }])
}

/// The time of a platform's result, else that of all.
fn epoch(metadata: &BTreeMap<String, Bytes>, id: &str) -> Result<Option<i64>, Failure> {
    let text = metadata.get(&format!("{EPOCH}/{id}")).or_else(|| metadata.get(EPOCH));
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let seconds = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    seconds.map(Some).ok_or_else(|| Failure::new(Code::InvalidArgument, format!("invalid `{EPOCH}`")))
}

/// The config of a platform, else that of all.
fn config(metadata: &BTreeMap<String, Bytes>, id: &str) -> Result<Option<ImageConfig>, Failure> {
    let json = metadata.get(&format!("{CONFIG}/{id}")).or_else(|| metadata.get(CONFIG));
    let Some(json) = json else { return Ok(None) };
    let config = serde_json::from_slice(json);
    config.map(Some).map_err(|e| Failure::new(Code::InvalidArgument, format!("invalid image config: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, Bytes> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), Bytes::copy_from_slice(v.as_bytes()))).collect()
    }

    #[test]
    fn the_platform_is_the_one_that_is_named() {
        let named = |pairs: &[(&str, &str)]| {
            platforms(&metadata(pairs)).map(|all| all[0].platform.architecture.clone())
        };
        let listed = r#"{"Platforms":[{"ID":"x","Platform":{"architecture":"arm64","os":"linux"}}]}"#;
        let config = r#"{"architecture":"s390x","os":"linux"}"#;
        assert_eq!(named(&[(PLATFORMS, listed), (CONFIG, config)]).unwrap(), "arm64");
        assert_eq!(named(&[(CONFIG, config)]).unwrap(), "s390x");
        assert_eq!(named(&[]).unwrap(), host_platform().architecture);
        for bad in ["", "{", "{}", r#"{"Platforms":[{"ID":"","Platform":{"architecture":"a","os":"b"}}]}"#] {
            assert_eq!(named(&[(PLATFORMS, bad)]).unwrap_err().code, Code::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn a_platform_has_its_own_time() {
        let all = metadata(&[(EPOCH, "7"), ("source.date.epoch/a", "8"), ("source.date.epoch/b", "x")]);
        assert_eq!(epoch(&all, "a").unwrap(), Some(8));
        assert_eq!(epoch(&all, "c").unwrap(), Some(7));
        assert_eq!(epoch(&all, "b").unwrap_err().code, Code::InvalidArgument);
        assert_eq!(epoch(&metadata(&[(EPOCH, "")]), "").unwrap(), None);
    }

    #[test]
    fn a_platform_has_its_own_config() {
        let all = metadata(&[
            (CONFIG, r#"{"os":"linux","author":"all"}"#),
            ("containerimage.config/a", r#"{"os":"linux","author":"a","own":1}"#),
        ]);
        assert_eq!(config(&all, "a").unwrap().unwrap().author, "a");
        assert_eq!(config(&all, "a").unwrap().unwrap().extra["own"], 1);
        assert_eq!(config(&all, "b").unwrap().unwrap().author, "all");
        assert_eq!(config(&metadata(&[(CONFIG, "[")]), "").unwrap_err().code, Code::InvalidArgument);
    }
}
