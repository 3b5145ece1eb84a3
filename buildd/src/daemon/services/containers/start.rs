//! One container, from the request to its exit code.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use cache::oci::{ImageMetadata, Reference};
use cache::store::ImageRecord;
use proto::rbuild::run_response::Response;
use proto::rbuild::{RunRequest, RunStart};
use runner::{Monitored, SandboxSpec, TerminalSize, User};
use solver::{Digest, ExecError, Output};
use tonic::{Code, Status, Streaming};

use super::files::{Files, attend};
use super::plan::{Plan, checked, plan};
use crate::causes::causes;
use crate::container::{Ends, Responses, Streams, relay, response};
use crate::daemon::blocking::blocking;
use crate::daemon::builds::Builds;
use crate::daemon::chains::from_store;
use crate::daemon::control::store_status;
use crate::daemon::parts::Parts;
use crate::daemon::services::image_json;
use crate::daemon::services::images::find;
use crate::daemon::services::transfer::{Work, as_step, pull_image};
use crate::daemon::side::{Claim, ContainerEnds};
use crate::daemon::sources::image::host_platform;
use crate::daemon::{failure, users};

/// Digits of a container's id that are its host name, as docker has it.
const HOST_NAME: usize = 12;

/// A container that is going to run.
#[derive(Debug)]
pub(super) struct Container {
    work: Work,
    id: String,
    name: String,
    start: RunStart,
    /// What the client may ask for, if it is not on this machine, as far as we know.
    far: Option<Vec<String>>,
    /// From the beginning, as its image may take long to come.
    passed: Claim,
}

impl Container {
    /// Checks the name and takes it for as long as the container lives.
    pub(super) fn begin(
        parts: &Arc<Parts>,
        builds: &Arc<Builds>,
        start: RunStart,
        far: Option<Vec<String>>,
    ) -> Result<Self, Status> {
        let id = new_id();
        let name = match start.name.as_str() {
            "" => id.clone(),
            name => checked("container", name).map_err(|e| Status::invalid_argument(e.to_string()))?,
        };
        let passed = parts.passed.claim(&start.session);
        let work = Work::begin(parts, builds, &super::reference(&name), &start.session);
        let taken = || Status::already_exists(format!("a container named `{name}` is running"));
        Ok(Self { work: work.ok_or_else(taken)?, id, name, start, far, passed })
    }

    /// Runs it; the last response tells how it ended, if the client does not learn that from the monitor.
    pub(super) async fn run(mut self, requests: Streaming<RunRequest>, tx: Responses) -> Result<(), Status> {
        let record = self.image(&tx).await?;
        self.complete(&record, &tx).await?;
        let (files, spec) = self.prepare(record).await?;
        self.work.release();
        match self.passed.take_container() {
            Some(ends) => self.hand_over(files, &spec, ends, tx).await,
            None => self.relay(files, spec, requests, tx).await,
        }
    }

    /// Starts it under a monitor, which talks to the client by itself, and waits for the end.
    async fn hand_over(
        self,
        files: Files,
        spec: &SandboxSpec,
        ends: ContainerEnds,
        tx: Responses,
    ) -> Result<(), Status> {
        let ContainerEnds { control, stdio } = ends;
        let (alive, writer) = files.outlive(&self.name).map_err(|e| status_of(&e))?;
        let monitored = Monitored { control, alive: writer };
        let spawned = self.work.parts.sandboxes.spawn_monitored(spec, &stdio, &monitored);
        spawned.map_err(|e| Status::unknown(causes(&e)))?;
        drop((monitored, stdio));
        self.work.listed.rest();
        let _ = tx.send(Ok(response(Response::Started(self.id.clone())))).await;
        // The client waits for the end of the call: whoever sees the end finds nothing left.
        attend(alive, files, &self.work.listed.cancel).await;
        Ok(())
    }

    /// Runs it under this daemon's launcher, and relays.
    async fn relay(
        self,
        files: Files,
        spec: SandboxSpec,
        requests: Streaming<RunRequest>,
        tx: Responses,
    ) -> Result<(), Status> {
        let (streams, stdio) =
            Streams::new(self.start.tty, self.start.interactive, false).map_err(internal)?;
        let spawned = self.work.parts.sandboxes.spawn(&spec, || stdio.try_clone());
        let handle = spawned.map_err(|e| Status::unknown(causes(&e)))?;
        // Output ends when the sandbox does.
        drop((spec, stdio));
        let cancel = self.work.listed.cancel.clone();
        let (id, responses) = (self.id.clone(), tx.clone());
        let ends = Ends { id, handle, streams, requests, input: None, responses, cancel };
        let code = relay(ends).await;
        // Whoever sees the end finds nothing left.
        blocking(move || drop(files)).await;
        drop(self);
        let _ = tx.send(Ok(response(Response::Exit(code?)))).await;
        Ok(())
    }

    /// The image of the store, pulled when it is not there.
    async fn image(&self, tx: &Responses) -> Result<ImageRecord, Status> {
        let (store, image) = (self.work.parts.store.clone(), self.start.image.clone());
        let look = move || blocking(move || find(&store, &image).map(|(_, record)| record));
        match look.clone()().await {
            Err(e) if e.code() == Code::NotFound => {}
            other => return other,
        }
        let image = self.start.image.clone();
        let name = format!("pulling {image}");
        let status = |status| response(Response::Status(status));
        let pulled = as_step(&self.work, tx, status, &name, |parts, _, cx| {
            Box::pin(async move { pull_image(parts, &image, &host_platform(), cx).await })
        });
        pulled.await.map_err(|e| status_of(&e))?;
        look().await
    }

    /// Brings in what a build left at registries.
    async fn complete(&self, record: &ImageRecord, tx: &Responses) -> Result<(), Status> {
        let layers = self.work.parts.store.layers();
        let present = |id| layers.get(id).map(|layer| layer.is_some_and(|layer| layer.present));
        let all: Result<Vec<bool>, _> = record.layers.iter().map(present).collect();
        if all.map_err(store_status)?.into_iter().all(|here| here) {
            return Ok(());
        }
        let (image, record) = (self.start.image.clone(), record.clone());
        let name = format!("pulling layers of {image}");
        let status = |status| response(Response::Status(status));
        let pulled = as_step(&self.work, tx, status, &name, |parts, _, cx| {
            Box::pin(async move {
                let reference = Reference::parse(&image).map_err(ExecError::failed)?;
                parts.images.complete(&reference, &record, cx).await?;
                Ok(image)
            })
        });
        pulled.await.map(drop).map_err(|e| status_of(&e))
    }

    /// Decides what to run and makes its files.
    async fn prepare(&self, record: ImageRecord) -> Result<(Files, SandboxSpec), Status> {
        let (parts, id, start) = (self.work.parts.clone(), self.id.clone(), self.start.clone());
        let far = self.far.clone();
        blocking(move || {
            let image: ImageMetadata = image_json::config(&parts.store, &record)?;
            let plan = plan(&image.config, &start, &id[..HOST_NAME]);
            let plan = plan.map_err(|e| Status::invalid_argument(e.to_string()))?;
            if let Some(granted) = far {
                plan.check_from_afar(&granted).map_err(|e| Status::permission_denied(e.to_string()))?;
            }
            let files = Files::create(&parts.store, &id, &record.layers).map_err(|e| status_of(&e))?;
            let mut spec = spec(&parts, &record, plan, &files).map_err(|e| status_of(&e))?;
            id[..HOST_NAME].clone_into(&mut spec.hostname);
            spec.tty = start.tty.then(|| start.size.as_ref().map(terminal_size).unwrap_or_default());
            Ok((files, spec))
        })
        .await
    }
}

/// Makes the files and says what the runner needs to know. Blocking.
fn spec(parts: &Parts, record: &ImageRecord, plan: Plan, files: &Files) -> Result<SandboxSpec, ExecError> {
    let content = content(parts, record)?;
    let output = Output { chain: record.layers.clone().into(), content: Some(content), local: None };
    let base = parts.chains.base(&output)?;
    let user = users::resolve(&base.view, &plan.user).map_err(ExecError::failed)?;
    let lower: Vec<PathBuf> = parts.chains.dirs(&record.layers)?;
    let root = files.root(&base, lower, &plan.cwd, parts.mounting)?;
    let mut spec = SandboxSpec::new(root, plan.args);
    parts.mounting.apply(&mut spec);
    spec.env = plan.env;
    if !spec.env.iter().any(|e| e.starts_with("HOME=")) {
        spec.env.push(format!("HOME={}", user.home));
    }
    spec.cwd = plan.cwd;
    spec.user = User { uid: user.uid, gid: user.gid, groups: user.groups };
    spec.network = plan.network;
    let mut volumes = plan.volumes;
    // Outside in, so that a volume lies on the one that it is nested in.
    volumes.sort_by_key(|v| v.target.components().count());
    spec.mounts = volumes.iter().map(|v| files.volume(v, &base)).collect::<Result<_, _>>()?;
    if let Some(dns) = &parts.config.dns {
        spec.dns.nameservers.clone_from(&dns.nameservers);
        spec.dns.search.clone_from(&dns.search_domains);
        spec.dns.options.clone_from(&dns.options);
    }
    Ok(spec)
}

/// The content of an image's layers, put together where nothing has asked for it yet.
fn content(parts: &Parts, record: &ImageRecord) -> Result<Digest, ExecError> {
    let (store, trees) = (&parts.store, &parts.chains.trees);
    if let Some(root) = parts.chains.image_content(&record.manifest)? {
        return Ok(*root.digest());
    }
    let mut root = cache::tree::Trees::empty();
    for id in &record.layers {
        let entries = store.layers().entries(id).map_err(from_store)?;
        root = trees.apply(root, &entries).map_err(ExecError::failed)?;
    }
    store.set_content(&record.manifest, &root).map_err(from_store)?;
    Ok(*root.digest())
}

fn terminal_size(size: &proto::rbuild::TerminalSize) -> TerminalSize {
    let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    TerminalSize { rows: short(size.rows), columns: short(size.columns) }
}

/// An id that no other container has had.
fn new_id() -> String {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    Digest::of(format!("container {serial} of {} at {now}", std::process::id()).as_bytes()).hex()
}

fn status_of(e: &ExecError) -> Status {
    match e {
        ExecError::Canceled => Status::cancelled("the container was cancelled"),
        other => Status::unknown(failure::text(other)),
    }
}

fn internal(e: std::io::Error) -> Status {
    Status::internal(format!("cannot connect to the container: {e}"))
}
