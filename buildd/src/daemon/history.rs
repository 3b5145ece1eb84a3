//! The daemon's builds as BuildKit's history API shows them: running ones in memory, past ones in the store.

mod event;
mod filter;
mod log;
mod trace;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use cache::oci::{Document, MANIFEST_LIMIT, media_type};
use cache::store::{
    BlobPurpose, BlobRef, BuildBlob, BuildRecord, BuildStatement, BuildStatus, Destination, Lease,
    StepCounts, Store, StoreError,
};
use prost::Message as _;
use proto::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRequest, SolveRequest, UpdateBuildHistoryRequest,
};
use solver::Digest;
use tokio::sync::broadcast;
use tonic::{Code, Status};

use super::control::store_status;
use super::failure::Failure;
use super::journal::Journal;
use super::metrics::Metrics;
use super::provenance::Provenance;
use super::timestamp::to_millis;
use filter::Filter;
pub(super) use log::LogReader;

/// So many events may wait for a listener; one that is slower misses some.
const WAITING: usize = 256;

/// The builds of a daemon.
#[derive(Debug)]
pub(super) struct Histories {
    store: Store,
    metrics: Arc<Metrics>,
    running: Mutex<BTreeMap<String, BuildRecord>>,
    /// Traces that are not kept yet, by their build.
    traces: Mutex<BTreeMap<String, trace::Waiting>>,
    events: broadcast::Sender<Arc<BuildHistoryEvent>>,
}

/// What a build that went well leaves.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// What the exporters say.
    pub response: BTreeMap<String, String>,
    /// What is told of the results.
    pub told: Vec<Told>,
    /// The manifests and indexes that were made, by the exporters' numbers.
    pub made: BTreeMap<u64, BlobRef>,
}

/// What is told of one result.
#[derive(Debug)]
pub(super) struct Told {
    /// For which platform it is, if there are several.
    pub platform: Option<String>,
    /// How it came about.
    pub provenance: Provenance,
}

/// A running build; when it is dropped before its end, it never was.
#[derive(Debug)]
pub(super) struct Recording {
    histories: Arc<Histories>,
    record: BuildRecord,
}

impl Histories {
    /// Those of a store; those that end are counted.
    pub(super) fn new(store: Store, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            metrics,
            running: Mutex::default(),
            traces: Mutex::default(),
            events: broadcast::channel(WAITING).0,
        }
    }

    /// Begins a build.
    pub(super) fn begin(self: &Arc<Self>, request: &SolveRequest) -> Recording {
        let record = BuildRecord {
            reference: request.r#ref.clone(),
            started_ms: to_millis(SystemTime::now()),
            finished_ms: None,
            status: BuildStatus::Running,
            frontend: request.frontend.clone(),
            attrs: without_secrets(&request.frontend_attrs),
            destinations: destinations(request),
            response: BTreeMap::new(),
            steps: StepCounts::default(),
            log: None,
            error: None,
            trace: None,
            statements: Vec::new(),
            results: BTreeMap::new(),
            listed: Vec::new(),
            pinned: false,
        };
        let mut running = self.lock();
        running.insert(record.reference.clone(), record.clone());
        let _ = self.events.send(Arc::new(event::of(&record, None)));
        drop(running);
        Recording { histories: self.clone(), record }
    }

    /// What there is, and a receiver of what comes. Blocking.
    ///
    /// # Errors
    /// A filter that does not parse, or a store that cannot be read.
    pub(super) fn list(
        &self,
        request: &BuildHistoryRequest,
    ) -> Result<(Vec<BuildHistoryEvent>, broadcast::Receiver<Arc<BuildHistoryEvent>>), Status> {
        let filter = Filter::parse(&request.filter)?;
        let limit = usize::try_from(request.limit)
            .map_err(|_| Status::invalid_argument(format!("invalid limit {}", request.limit)))?;
        // In this order no build is missed that ends meanwhile; one may be told twice.
        let coming = self.events.subscribe();
        let running: Vec<_> = self.lock().values().cloned().collect();
        let wanted = |b: &BuildRecord| request.r#ref.is_empty() || b.reference == request.r#ref;
        let mut past = match request.active_only {
            true => Vec::new(),
            false => self.store.history().list().map_err(store_status)?,
        };
        past.retain(|b| wanted(b) && filter.matches(b));
        if limit > 0 {
            past.reverse();
            past.truncate(limit);
        }
        let running = running.into_iter().filter(wanted);
        let all = running.chain(past).map(|b| event::of(&b, self.log_size(&b))).collect();
        Ok((all, coming))
    }

    /// The log of a past build; `None` for one that is not known or has none. Blocking.
    ///
    /// # Errors
    /// A store that cannot be read, or whose blob is gone.
    pub(super) fn log(&self, reference: &str) -> Result<Option<LogReader>, Status> {
        let build = self.store.history().get(reference).map_err(store_status)?;
        let Some(digest) = build.and_then(|b| b.log) else { return Ok(None) };
        LogReader::open(&self.store, digest, reference).map(Some)
    }

    /// Pins, unpins or removes a build. Blocking.
    ///
    /// # Errors
    /// A build that is not known, or a store that cannot be written.
    pub(super) fn update(&self, r: &UpdateBuildHistoryRequest) -> Result<(), Status> {
        let history = self.store.history();
        let _alone = self.lock();
        let found = history.get(&r.r#ref).map_err(store_status)?;
        let mut record = found.ok_or_else(|| Status::not_found(format!("no build `{}`", r.r#ref)))?;
        if r.delete {
            history.remove(&r.r#ref).map_err(store_status)?;
            let mut event = event::of(&record, None);
            event.r#type = BuildHistoryEventType::Deleted as i32;
            let _ = self.events.send(Arc::new(event));
            return Ok(());
        }
        record.pinned = r.pinned;
        history.put(&record).map_err(store_status)?;
        let _ = self.events.send(Arc::new(event::of(&record, self.log_size(&record))));
        Ok(())
    }

    fn log_size(&self, build: &BuildRecord) -> Option<u64> {
        build.log.and_then(|digest| self.store.blobs().size(&digest).ok().flatten())
    }

    fn traces(&self) -> MutexGuard<'_, BTreeMap<String, trace::Waiting>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BuildRecord>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recording {
    /// Ends the build: its log and what is told of its results become blobs, and it a past one. Blocking; what fails is
    /// only logged.
    pub(super) fn end(mut self, journal: &Journal, lease: &Lease, result: &Result<Done, Failure>) {
        let store = &self.histories.store;
        match log::keep(store, lease, journal) {
            Ok((log, steps)) => (self.record.log, self.record.steps) = (Some(log), steps),
            Err(e) => tracing::warn!(build = self.record.reference, "cannot keep the log of a build: {e}"),
        }
        self.record.finished_ms = Some(to_millis(SystemTime::now()));
        self.record.status = match result {
            Ok(done) => {
                self.record.response.clone_from(&done.response);
                self.record.results.clone_from(&done.made);
                for made in done.made.values() {
                    match listed(store, made) {
                        Ok(manifests) => self.record.listed.extend(manifests),
                        Err(e) => {
                            tracing::warn!(
                                build = self.record.reference,
                                "cannot read what a build made: {e}"
                            )
                        }
                    }
                }
                match done.told.iter().map(|told| keep(store, lease, told)).collect() {
                    Ok(statements) => self.record.statements = statements,
                    Err(e) => {
                        tracing::warn!(
                            build = self.record.reference,
                            "cannot keep a build's provenance: {e}"
                        );
                    }
                }
                BuildStatus::Done
            }
            Err(f) if f.code == Code::Cancelled => BuildStatus::Cancelled,
            Err(f) => {
                match keep_error(store, lease, f) {
                    Ok(error) => self.record.error = Some(error),
                    Err(e) => {
                        tracing::warn!(build = self.record.reference, "cannot keep a build's error: {e}")
                    }
                }
                BuildStatus::Failed { code: f.code as i32, message: f.message.clone() }
            }
        };
        self.histories.metrics.count(&self.record);
        match store.history().put(&self.record) {
            Ok(()) => {
                let size = self.histories.log_size(&self.record);
                let _ = self.histories.events.send(Arc::new(event::of(&self.record, size)));
            }
            Err(e) => tracing::warn!(build = self.record.reference, "cannot note a build: {e}"),
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.histories.lock().remove(&self.record.reference);
    }
}

/// The manifests that an index lists, as far as the store has them; none for a manifest.
fn listed(store: &Store, made: &BlobRef) -> Result<Vec<Digest>, StoreError> {
    if !media_type::is_index(&made.media_type) {
        return Ok(Vec::new());
    }
    let bytes = store.blobs().read(&made.digest, MANIFEST_LIMIT)?;
    let Ok(Document::Index(index)) = Document::parse(&bytes, Some(&made.media_type)) else {
        return Ok(Vec::new());
    };
    let mut manifests = Vec::new();
    for manifest in &index.manifests {
        if store.blobs().size(&manifest.digest)?.is_some() {
            manifests.push(manifest.digest);
        }
    }
    Ok(manifests)
}

/// Writes what is told of a result into a blob, held by `lease`.
fn keep(store: &Store, lease: &Lease, told: &Told) -> Result<BuildStatement, StoreError> {
    let text = format!("{:#}", told.provenance.predicate(&[]));
    let purpose = BlobPurpose { description: media_type::IN_TOTO.to_owned(), ..BlobPurpose::default() };
    Ok(BuildStatement {
        platform: told.platform.clone(),
        predicate_type: told.provenance.predicate_type().to_owned(),
        predicate: store.blobs().put(lease, text.as_bytes(), purpose)?,
        size: text.len() as u64,
    })
}

/// Writes a failure with its details into a blob, held by `lease`. The files that it quotes lose the credentials of URLs,
/// and how they were loaded is not kept where it has any: every client may read the blob.
fn keep_error(store: &Store, lease: &Lease, failure: &Failure) -> Result<BuildBlob, StoreError> {
    let mut failure = failure.clone();
    for info in failure.details.sources.iter_mut().filter_map(|source| source.info.as_mut()) {
        let tells = |bytes: &[u8]| matches!(solver::redacted(&String::from_utf8_lossy(bytes)), Cow::Owned(_));
        info.data = solver::redacted(&String::from_utf8_lossy(&info.data)).into_owned().into();
        info.definition.take_if(|definition| definition.def.iter().any(|op| tells(op)));
    }
    let bytes = crate::errdetails::full(&failure.status()).encode_to_vec();
    let purpose = BlobPurpose { description: event::ERROR.to_owned(), ..BlobPurpose::default() };
    Ok(BuildBlob { blob: store.blobs().put(lease, &bytes, purpose)?, size: bytes.len() as u64 })
}

fn destinations(request: &SolveRequest) -> Vec<Destination> {
    let given = request.exporters.iter().map(|e| (e.r#type.clone(), &e.attrs));
    let old = (request.exporters.is_empty() && !request.exporter_deprecated.is_empty())
        .then(|| (request.exporter_deprecated.clone(), &request.exporter_attrs_deprecated));
    given.chain(old).map(|(kind, attrs)| Destination { kind, attrs: without_secrets(attrs) }).collect()
}

/// Build arguments are left out, too: passwords are given as such, against all advice. So are credentials of URLs, and caches,
/// whose attributes may hold keys.
fn without_secrets(attrs: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let secret = |k: &str| {
        k == "cache-imports" || k.starts_with("build-arg:") || k.contains("secret") || k.contains("token")
    };
    attrs
        .iter()
        .filter(|(k, _)| !secret(k))
        .map(|(k, v)| (k.clone(), solver::redacted(v).into_owned()))
        .collect()
}
