//! BuildKit's Control service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cache::store::{PrunePolicy, StoreError, UsageRecord as StoreUsage};
use futures_util::{Stream, StreamExt};
use proto::control::control_server::Control;
use proto::control::*;
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::blocking::blocking;
use super::builds::Builds;
use super::history::LogReader;
use super::parts::Parts;
use super::peer::Peer;
use super::{about, solve, timestamp};
use crate::causes::causes;

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
        let asked = solve::Caller::of(&request);
        let request = request.into_inner();
        // A task of its own, so that it ends in order also when the client hangs up, which cancels it.
        let caller = CancellationToken::new();
        let _hung_up = caller.clone().drop_guard();
        let done =
            tokio::spawn(async move { solve::solve(&parts, &builds, request, asked, caller).await }).await;
        let response = done.map_err(|_| Status::internal("the build panicked; see the daemon's log"))?;
        Ok(Response::new(SolveResponse { exporter_response: response.map_err(|f| f.status())? }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let reference = request.into_inner().r#ref;
        if self.builds.known(&reference).is_none() {
            let (histories, past) = (self.parts.histories.clone(), reference.clone());
            if let Some(log) = blocking(move || histories.log(&past)).await? {
                return Ok(with_clock(Response::new(replay(log))));
            }
        }
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
        Ok(with_clock(Response::new(Box::pin(ReceiverStream::new(rx)))))
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let owner = Peer::of(request.extensions()).name().unwrap_or_default();
        Ok(self.parts.sessions.handle(request, owner).await?.map(|s| Box::pin(s) as Self::SessionStream))
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
        let (histories, wanted, early_exit) = (self.parts.histories.clone(), r.r#ref.clone(), r.early_exit);
        let (known, coming) = blocking(move || histories.list(&r)).await?;
        let known = futures_util::stream::iter(known.into_iter().map(Ok));
        if early_exit {
            return Ok(with_clock(Response::new(Box::pin(known))));
        }
        let of_wanted = move |event: &BuildHistoryEvent| {
            wanted.is_empty() || event.record.as_ref().is_some_and(|record| record.r#ref == wanted)
        };
        let coming = BroadcastStream::new(coming).filter_map(move |event| {
            // Who is too slow misses what came in between.
            std::future::ready(
                event.ok().filter(|event| of_wanted(event)).map(|event| Ok(Arc::unwrap_or_clone(event))),
            )
        });
        Ok(with_clock(Response::new(Box::pin(known.chain(coming)))))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        let r = request.into_inner();
        let histories = self.parts.histories.clone();
        if r.finalize && !r.delete {
            histories.finalize(&r.r#ref).await;
        } else {
            blocking(move || histories.update(&r)).await?;
        }
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

/// The messages of a past build.
fn replay(mut log: LogReader) -> Streamed<StatusResponse> {
    let (tx, rx) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        while let Some(next) = log.next_message().transpose() {
            let failed = next.is_err();
            if tx.blocking_send(next).is_err() || failed {
                return;
            }
        }
    });
    Box::pin(ReceiverStream::new(rx))
}

/// Tells the daemon's time, by which clients understand the times that they are told.
fn with_clock<T>(mut response: Response<T>) -> Response<T> {
    if let Ok(now) = jiff::Timestamp::now().to_string().parse() {
        response.metadata_mut().insert(CLOCK_HEADER, now);
    }
    response
}

/// What an error of the store is to a client.
pub(super) fn store_status(e: StoreError) -> Status {
    match e {
        StoreError::Filter(_) => Status::invalid_argument(causes(&e)),
        e => Status::internal(causes(&e)),
    }
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
