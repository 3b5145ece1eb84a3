//! Self-checks.

use std::sync::Arc;

use proto::rbuild::debug_server::Debug;
use proto::rbuild::verify_event::Event;
use proto::rbuild::{VerifyEvent, VerifyRequest, VerifySummary};
use tokio_stream::Iter;
use tonic::{Request, Response, Status};

use crate::daemon::blocking::blocking;
use crate::daemon::control::store_status;
use crate::daemon::parts::Parts;

/// Checks what the store holds.
#[derive(Debug, Clone)]
pub(crate) struct DebugService {
    /// What the daemon is made of.
    pub parts: Arc<Parts>,
}

#[tonic::async_trait]
impl Debug for DebugService {
    type VerifyStream = Iter<std::vec::IntoIter<Result<VerifyEvent, Status>>>;

    async fn verify(&self, _: Request<VerifyRequest>) -> Result<Response<Self::VerifyStream>, Status> {
        let store = self.parts.store.clone();
        let report = blocking(move || store.verify()).await.map_err(store_status)?;
        let event = |event| Ok(VerifyEvent { event: Some(event) });
        let mut events: Vec<_> = report.problems.iter().map(|f| event(Event::Finding(f.clone()))).collect();
        events.push(event(Event::Summary(VerifySummary {
            records: report.records as u64,
            trees: report.trees as u64,
            layers: report.layers as u64,
            blobs: report.blobs as u64,
            findings: report.problems.len() as u64,
        })));
        Ok(Response::new(tokio_stream::iter(events)))
    }
}
