//! A build on the wire.

use std::collections::BTreeMap;

use cache::oci::media_type;
use cache::store::{BuildBlob, BuildRecord, BuildStatus};
use proto::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildResultInfo, Descriptor, Exporter,
};
use tonic::Code;

use super::log::MEDIA_TYPE;
use crate::daemon::provenance::PREDICATE_TYPE;
use crate::daemon::timestamp;

/// A failure with its details, in BuildKit's spelling.
pub(super) const ERROR: &str = "application/vnd.googeapis.google.rpc.status+proto";

/// Spans, as BuildKit keeps them.
pub(super) const TRACE: &str = "application/vnd.buildkit.otlp.json.v0";

/// A build as an event of the history stream; `log_size` is that of its log, in bytes.
pub(super) fn of(b: &BuildRecord, log_size: Option<u64>) -> BuildHistoryEvent {
    let error = match &b.status {
        BuildStatus::Failed { code, message } => Some((*code, message.clone())),
        // Clients know a cancelled build by this text.
        BuildStatus::Cancelled => Some((Code::Cancelled as i32, "context canceled".to_owned())),
        BuildStatus::Running | BuildStatus::Done => None,
    };
    let exporter =
        |d: &cache::store::Destination| Exporter { r#type: d.kind.clone(), attrs: d.attrs.clone() };
    let log = |digest: solver::Digest| {
        Some(Descriptor {
            media_type: MEDIA_TYPE.to_owned(),
            digest: digest.to_string(),
            size: log_size? as i64,
            ..Descriptor::default()
        })
    };
    let (result, results) = results(b);
    let record = BuildHistoryRecord {
        r#ref: b.reference.clone(),
        frontend: b.frontend.clone(),
        frontend_attrs: b.attrs.clone(),
        exporters: b.destinations.iter().map(exporter).collect(),
        error: error.map(|(code, message)| proto::rpc::Status { code, message, details: vec![] }),
        created_at: Some(timestamp::from_millis(b.started_ms)),
        completed_at: b.finished_ms.map(timestamp::from_millis),
        logs: b.log.and_then(log),
        exporter_response: b.response.clone(),
        result,
        results,
        pinned: b.pinned,
        external_error: b.error.map(|error| descriptor(ERROR, &error)),
        trace: b.trace.map(|trace| descriptor(TRACE, &trace)),
        num_cached_steps: b.steps.cached as i32,
        num_total_steps: b.steps.total as i32,
        num_completed_steps: b.steps.completed as i32,
        num_warnings: b.steps.warnings as i32,
        ..BuildHistoryRecord::default()
    };
    let kind = match record.completed_at {
        Some(_) => BuildHistoryEventType::Complete,
        None => BuildHistoryEventType::Started,
    };
    BuildHistoryEvent { r#type: kind as i32, record: Some(record) }
}

fn descriptor(media_type: &str, blob: &BuildBlob) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: blob.blob.to_string(),
        size: blob.size as i64,
        ..Descriptor::default()
    }
}

/// What is told of the only result, or of each platform's.
fn results(build: &BuildRecord) -> (Option<BuildResultInfo>, BTreeMap<String, BuildResultInfo>) {
    let (mut only, mut all) = (None, BTreeMap::<String, BuildResultInfo>::new());
    if !build.results.is_empty() {
        let made = build.results.iter().map(|(exporter, made)| {
            let blob = BuildBlob { blob: made.digest, size: made.size };
            (*exporter as i64, descriptor(&made.media_type, &blob))
        });
        let results: BTreeMap<i64, Descriptor> = made.collect();
        // Older clients know of one only.
        let result_deprecated = results.values().next().cloned();
        only = Some(BuildResultInfo { result_deprecated, results, ..BuildResultInfo::default() });
    }
    for statement in &build.statements {
        let info = match &statement.platform {
            None => only.get_or_insert_default(),
            Some(platform) => all.entry(platform.clone()).or_default(),
        };
        info.attestations.push(Descriptor {
            media_type: media_type::IN_TOTO.to_owned(),
            digest: statement.predicate.to_string(),
            size: statement.size as i64,
            annotations: BTreeMap::from([(PREDICATE_TYPE.to_owned(), statement.predicate_type.clone())]),
        });
    }
    (only, all)
}
