//! Past builds, as BuildKit's history API shows them.

use cache::store::{BuildRecord, BuildStatus, Store};
use proto::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, UpdateBuildHistoryRequest,
};
use tonic::{Code, Status};

use super::control::store_status;
use super::timestamp;

/// A past build as an event of the history stream.
pub(super) fn event(b: BuildRecord) -> BuildHistoryEvent {
    let error = match &b.status {
        BuildStatus::Failed(message) => Some((Code::Unknown, message.clone())),
        BuildStatus::Cancelled => Some((Code::Cancelled, "canceled".to_owned())),
        BuildStatus::Running | BuildStatus::Done => None,
    };
    let record = BuildHistoryRecord {
        r#ref: b.reference,
        frontend: b.frontend,
        frontend_attrs: b.attrs,
        error: error.map(|(code, message)| proto::rpc::Status {
            code: code as i32,
            message,
            details: vec![],
        }),
        created_at: Some(timestamp::from_millis(b.started_ms)),
        completed_at: b.finished_ms.map(timestamp::from_millis),
        pinned: b.pinned,
        num_cached_steps: b.steps.cached as i32,
        num_total_steps: b.steps.total as i32,
        num_completed_steps: b.steps.completed as i32,
        num_warnings: b.steps.warnings as i32,
        ..BuildHistoryRecord::default()
    };
    let kind = if record.completed_at.is_some() {
        BuildHistoryEventType::Complete
    } else {
        BuildHistoryEventType::Started
    };
    BuildHistoryEvent { r#type: kind as i32, record: Some(record) }
}

/// Pins, unpins or removes a build. Blocking.
pub(super) fn update(store: &Store, r: &UpdateBuildHistoryRequest) -> Result<(), Status> {
    let history = store.history();
    if r.delete {
        history.remove(&r.r#ref).map_err(store_status)?;
        return Ok(());
    }
    let found = history.get(&r.r#ref).map_err(store_status)?;
    let mut record = found.ok_or_else(|| Status::not_found(format!("no build `{}`", r.r#ref)))?;
    record.pinned = r.pinned;
    history.put(&record).map_err(store_status)
}
