//! BuildKit's Control service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cache::store::{PrunePolicy, UsageRecord as StoreUsage};
use futures_util::{Stream, StreamExt};
use proto::control::control_server::Control;
use proto::control::*;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::blocking::blocking;
use super::builds::Builds;
use super::parts::Parts;
use super::{about, solve, timestamp};

/// Header with the daemon's clock, RFC 3339 with nanoseconds.
const CLOCK_HEADER: &str = "buildkit-current-timestamp";

/// Serves the Control API.
#[derive(Debug, Clone)]
pub(super) struct ControlService {
    /// What the daemon is made of.
    pub parts: Arc<Parts>,
    /// Its builds.
    pub builds: Arc<Builds>,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for ControlService {
    type StatusStream = Streamed<StatusResponse>;
    type SessionStream = Streamed<BytesMessage>;
    type PruneStream = Streamed<UsageRecord>;
    type ListenBuildHistoryStream = Streamed<BuildHistoryEvent>;

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let (parts, builds) = (self.parts.clone(), self.builds.clone());
        let request = request.into_inner();
        // A task of its own, so that it ends in order also when the client hangs up, which cancels it.
        let caller = CancellationToken::new();
        let _hung_up = caller.clone().drop_guard();
        let done = tokio::spawn(async move { solve::solve(&parts, &builds, request, caller).await }).await;
        let response = done.map_err(|_| Status::internal("the build panicked; see the daemon's log"))?;
        Ok(Response::new(SolveResponse { exporter_response: response.map_err(|f| f.status())? }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let reference = request.into_inner().r#ref;
        let journal = self.builds.journal(&reference).await;
        let journal = journal.ok_or_else(|| Status::not_found(format!("no build `{reference}`")))?;
        let (tx, rx) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            let mut offset = 0;
            let told = async {
                while let Some((message, next)) = journal.read(offset).await {
                    offset = next;
                    if tx.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = told => {}
                () = tx.closed() => {}
            }
        });
        let mut response = Response::new(Box::pin(ReceiverStream::new(rx)) as Self::StatusStream);
        let now = jiff::Timestamp::now().to_string();
        if let Ok(now) = now.parse() {
            response.metadata_mut().insert(CLOCK_HEADER, now);
        }
        Ok(response)
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Ok(self.parts.sessions.handle(request).await?.map(|s| Box::pin(s) as Self::SessionStream))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let parts = self.parts.clone();
        let record = blocking(move || about::worker(&parts)).await;
        Ok(Response::new(ListWorkersResponse { record: vec![record] }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(about::version()) }))
    }

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let (store, r) = (self.parts.store.clone(), request.into_inner());
        let unused_for = Duration::from_nanos(u64::try_from(r.age_limit).unwrap_or(0));
        let used = blocking(move || store.du(&r.filter, unused_for)).await.map_err(store_status)?;
        Ok(Response::new(DiskUsageResponse { record: used.into_iter().map(usage).collect() }))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let r = request.into_inner();
        let bytes = |n: i64| u64::try_from(n).unwrap_or(0);
        let policy = PrunePolicy {
            all: r.all,
            filters: r.filter,
            keep_duration: Duration::from_nanos(bytes(r.keep_duration)),
            reserved_space: bytes(r.reserved_space),
            max_used_space: bytes(r.max_used_space),
            min_free_space: bytes(r.min_free_space),
        };
        let (store, trees) = (self.parts.store.clone(), self.parts.chains.trees.clone());
        let (tx, rx) = tokio::sync::mpsc::channel(64);
        // Dropping the stream ends the prune: what is gone stays gone, the rest is untouched.
        let cancel = CancellationToken::new();
        let stop = cancel.clone().drop_guard();
        tokio::task::spawn_blocking(move || {
            let mut gone = |u: &StoreUsage| {
                if tx.blocking_send(Ok(usage(u.clone()))).is_err() {
                    cancel.cancel();
                }
            };
            if let Err(e) = store.prune(&policy, &cancel, &mut gone) {
                let _ = tx.blocking_send(Err(store_status(e)));
            }
            trees.forget();
        });
        let records = ReceiverStream::new(rx).inspect(move |_| {
            let _until_the_stream_is_dropped = &stop;
        });
        Ok(Response::new(Box::pin(records)))
    }

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let r = request.into_inner();
        let active = self.builds.active();
        let store = self.parts.store.clone();
        let past = blocking(move || store.history().list()).await.map_err(store_status)?;
        let mut events: Vec<_> = past
            .into_iter()
            .filter(|b| r.r#ref.is_empty() || b.reference == r.r#ref)
            .filter(|b| !r.active_only || active.contains(&b.reference))
            .map(|b| Ok(super::history::event(b)))
            .collect();
        if r.limit > 0 {
            events.truncate(r.limit as usize);
        }
        Ok(Response::new(Box::pin(futures_util::stream::iter(events))))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        let r = request.into_inner();
        let store = self.parts.store.clone();
        blocking(move || super::history::update(&store, &r)).await?;
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

/// What an error of the store is to a client.
pub(super) fn store_status(e: cache::store::StoreError) -> Status {
    Status::internal(super::failure::chain(&e))
}

fn usage(u: StoreUsage) -> UsageRecord {
    UsageRecord {
        id: u.id,
        mutable: u.mutable,
        in_use: u.in_use,
        size: u.size as i64,
        created_at: Some(timestamp::from_millis(u.created_ms)),
        last_used_at: Some(timestamp::from_millis(u.last_used_ms)),
        usage_count: u.usage_count as i64,
        description: u.description,
        record_type: u.kind.as_str().to_owned(),
        shared: u.shared,
        ..UsageRecord::default()
    }
}
