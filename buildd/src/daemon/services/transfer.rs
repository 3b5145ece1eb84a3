//! Pull, push and save.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cache::oci::{ArchiveFormat as OciFormat, ArchiveImage, Reference};
use cache::store::ImageRecord;
use futures_util::future::BoxFuture;
use proto::control::StatusResponse;
use proto::rbuild::transfer_event::Event;
use proto::rbuild::*;
use solver::{ExecError, Progress, SessionGroup, VertexContext};
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::images::{ImagesService, find, given_name};
use super::naming;
use crate::daemon::blocking::blocking;
use crate::daemon::builds::{Builds, Listed};
use crate::daemon::chains::from_store;
use crate::daemon::export::{Form, write_stored};
use crate::daemon::failure;
use crate::daemon::journal::Journal;
use crate::daemon::leases::BuildLease;
use crate::daemon::parts::Parts;
use crate::daemon::progress::{Step, Teller};
use crate::daemon::sources::image::{Prefer, host_platform};

type Events<T> = ReceiverStream<Result<T, Status>>;

/// Messages that wait for the transport.
const BACKLOG: usize = 16;
/// Bytes of an archive in one message: a peer may refuse more than 4 MiB.
const CHUNK: usize = 256 << 10;

/// A request that is no build but works like one: it is listed, leased, and can be cancelled.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) parts: Arc<Parts>,
    pub(super) listed: Listed,
    pub(super) id: String,
    sessions: SessionGroup,
    lease: Option<BuildLease>,
}

impl Work {
    /// Begins work; `None` when other work has this id.
    pub(super) fn begin(parts: &Arc<Parts>, builds: &Arc<Builds>, id: &str, session: &str) -> Option<Self> {
        let listed = builds.begin(id)?;
        let sessions = if session.is_empty() { SessionGroup::default() } else { SessionGroup::of(session) };
        let lease = Some(parts.leases.begin(id));
        Some(Self { parts: parts.clone(), listed, id: id.to_owned(), sessions, lease })
    }

    /// Begins work under an id of its own.
    pub(super) fn anonymous(parts: &Arc<Parts>, builds: &Arc<Builds>, kind: &str, session: &str) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        loop {
            let id = format!("{kind}-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
            if let Some(work) = Self::begin(parts, builds, &id, session) {
                return work;
            }
        }
    }

    /// Lets go of what the work has held until now: some clean-up waits for that.
    pub(super) fn release(&mut self) {
        self.lease = None;
    }

    /// What the solver's and the exporter's functions want to know.
    pub(super) fn context(&self, progress: Progress) -> VertexContext {
        let cancel = self.listed.cancel.clone();
        VertexContext { build: self.id.clone(), sessions: self.sessions.clone(), progress, cancel }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.listed.cancel.cancel();
        self.parts.forget(&self.id);
    }
}

/// A transfer's work: it may tell parts of the step, and returns the digest of what was moved.
pub(super) type Moving<'a> = BoxFuture<'a, Result<String, ExecError>>;

/// Runs a transfer that tells its progress, and then the digest of what was moved.
fn told<F>(work: Work, name: String, run: F) -> Events<TransferEvent>
where
    F: for<'a> FnOnce(&'a Parts, &'a Step, &'a VertexContext) -> Moving<'a> + Send + 'static,
{
    let (tx, rx) = tokio::sync::mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let status = |status| TransferEvent { event: Some(Event::Status(status)) };
        let done = as_step(&work, &tx, status, &name, run).await;
        drop(work);
        let last = match done {
            Ok(digest) => Ok(TransferEvent { event: Some(Event::Digest(digest)) }),
            Err(e) => Err(Status::unknown(failure::text(&e))),
        };
        let _ = tx.send(last).await;
    });
    ReceiverStream::new(rx)
}

/// Runs a transfer as a step whose progress goes to `tx`; ends early when nobody listens any more.
pub(super) async fn as_step<T: Send + 'static>(
    work: &Work,
    tx: &Sender<Result<T, Status>>,
    event: fn(StatusResponse) -> T,
    name: &str,
    run: impl for<'a> FnOnce(&'a Parts, &'a Step, &'a VertexContext) -> Moving<'a>,
) -> Result<String, ExecError> {
    let journal = work.listed.journal.clone();
    let telling = tokio::spawn(tell(journal.clone(), tx.clone(), event));
    let step = Teller::new(journal.clone()).step(name);
    let cx = work.context(step.progress());
    let done = tokio::select! {
        done = run(&work.parts, &step, &cx) => done,
        () = tx.closed() => Err(ExecError::Canceled),
        () = cx.cancel.cancelled() => Err(ExecError::Canceled),
    };
    let done = step.end(done);
    journal.close();
    // What follows comes after all progress.
    let _ = telling.await;
    done
}

async fn tell<T>(journal: Arc<Journal>, tx: Sender<Result<T, Status>>, event: fn(StatusResponse) -> T) {
    let mut offset = 0;
    while let Some((status, next)) = journal.read(offset).await {
        offset = next;
        if tx.send(Ok(event(status))).await.is_err() {
            return;
        }
    }
}

/// Pulls an image and names it in the store.
pub(super) fn pull(service: &ImagesService, r: PullImageRequest) -> Events<TransferEvent> {
    let work = Work::anonymous(&service.parts, &service.builds, "pull", &r.session);
    told(work, format!("pulling {}", r.reference), |parts, _, cx| {
        Box::pin(async move {
            let platform = match r.platform.as_str() {
                "" => host_platform(),
                text => platform(text)?,
            };
            pull_image(parts, &r.reference, &platform, cx).await
        })
    })
}

fn platform(text: &str) -> Result<solver::op::Platform, ExecError> {
    let p: cache::oci::Platform = text.parse().map_err(ExecError::failed)?;
    Ok(solver::op::Platform {
        architecture: p.architecture,
        os: p.os,
        variant: p.variant.unwrap_or_default(),
        os_version: p.os_version.unwrap_or_default(),
    })
}

/// Pulls an image and names it; returns its digest.
pub(super) async fn pull_image(
    parts: &Parts,
    reference: &str,
    platform: &solver::op::Platform,
    cx: &VertexContext,
) -> Result<String, ExecError> {
    let found = parts.images.resolve(reference, platform, Prefer::Registry, cx).await?;
    parts.images.fetch_chain(&found.layers, cx).await?;
    let vouched = match parts.images.bring_statements(&found, cx).await {
        Err(ExecError::Canceled) => return Err(ExecError::Canceled),
        Err(e) => {
            tracing::warn!(image = reference, "cannot have what is said of an image: {}", failure::text(&e));
            None
        }
        Ok(vouched) => vouched,
    };
    let (store, lease, pulled) = (parts.store.clone(), parts.leases.of(&cx.build), found.clone());
    blocking(move || {
        let record = naming::record(&store, &pulled.image, &pulled.layers, vouched, &lease)?;
        store.images().put(&pulled.reference.to_string(), &record).map_err(from_store)
    })
    .await?;
    parts.checkpoint_soon();
    Ok(found.image.digest.to_string())
}

/// Pushes an image of the store.
pub(super) fn push(service: &ImagesService, r: PushImageRequest) -> Events<TransferEvent> {
    let work = Work::anonymous(&service.parts, &service.builds, "push", &r.session);
    told(work, format!("pushing {}", r.reference), |parts, step, cx| {
        Box::pin(async move {
            let no_image = |text: String| ExecError::failed(NoImage(text));
            let found = find(&parts.store, &r.reference).map_err(|s| no_image(s.message().to_owned()));
            let (name, record) = found?;
            let to =
                given_name(&name).ok_or_else(|| no_image(format!("image `{}` has no name", r.reference)))?;
            let pushed = parts.exporter.push_stored(&to, &record, step, cx).await?;
            Ok(pushed.to_string())
        })
    })
}

/// Writes images into one archive.
///
/// # Errors
/// An image that is not there.
pub(super) fn save(
    service: &ImagesService,
    r: SaveImageRequest,
) -> Result<Events<SaveImageResponse>, Status> {
    let mut images: Vec<(Vec<Reference>, ImageRecord)> = Vec::new();
    for text in &r.references {
        let (name, record) = find(&service.parts.store, text)?;
        let names = given_name(&name);
        match images.iter_mut().find(|(_, known)| known.target == record.target) {
            Some((known, _)) => known.extend(names),
            None => images.push((names.into_iter().collect(), record)),
        }
    }
    let format = match r.format() {
        ArchiveFormat::Docker => OciFormat::Docker,
        ArchiveFormat::Oci => OciFormat::Oci,
    };
    let work = Work::anonymous(&service.parts, &service.builds, "save", "");
    let (tx, rx) = tokio::sync::mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let done = tokio::select! {
            done = write(&work, images, format, tx.clone()) => done,
            () = work.listed.cancel.cancelled() => Err(ExecError::Canceled),
        };
        if let Err(e) = done {
            let _ = tx.send(Err(Status::unknown(failure::text(&e)))).await;
        }
    });
    Ok(ReceiverStream::new(rx))
}

async fn write(
    work: &Work,
    images: Vec<(Vec<Reference>, ImageRecord)>,
    format: OciFormat,
    tx: Sender<Result<SaveImageResponse, Status>>,
) -> Result<(), ExecError> {
    let cx = work.context(Progress::new(|_| {}));
    let mut list = Vec::new();
    for (names, record) in images {
        let target = work.parts.exporter.with_blobs(&record, Form::compressed(), &cx).await?;
        let created = jiff::Timestamp::from_millisecond(record.created_ms as i64).ok();
        list.push(ArchiveImage { target, names, created: created.map(|t| t.to_string()) });
    }
    let store = work.parts.store.clone();
    blocking(move || {
        let out = std::io::BufWriter::with_capacity(CHUNK, Chunks(tx));
        let mut out = write_stored(&store, out, format, &list, &[])?;
        out.flush().map_err(ExecError::failed)
    })
    .await
}

/// Sends what is written as messages.
struct Chunks(Sender<Result<SaveImageResponse, Status>>);

impl Write for Chunks {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        // A copy may write more than the buffer above holds at once.
        let buf = &buf[..buf.len().min(CHUNK)];
        let message = SaveImageResponse { data: bytes::Bytes::copy_from_slice(buf) };
        self.0.blocking_send(Ok(message)).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An image that is not in the store.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoImage(String);
