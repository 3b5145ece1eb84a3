//! Containers that a client makes of results: to look into a step that failed, or as part of its frontend.
//!
//! The first process makes the sandbox, over mounts that the container holds from its beginning to its end; those after it join
//! the first, and end with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::store::Staging;
use proto::gateway::{InitMessage, NewContainerRequest};
use proto::pb;
use runner::{SandboxHandle, Stdio, TerminalSize};
use solver::op::{ExecOp, Platform};
use solver::{GraphBuilder, Job, Op, Output, Progress, Vertex, VertexMeta};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::Bridge;
use crate::causes::causes;
use crate::daemon::blocking::blocking;
use crate::daemon::dockerfile::check_policy;
use crate::daemon::failure::Failure;
use crate::daemon::worker::{Mounts, Shown};

/// The containers of a build.
#[derive(Debug, Default)]
pub(super) struct Containers(Mutex<HashMap<String, Arc<Container>>>);

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    id: String,
    /// Mounts, network and names; each process adds what it runs.
    exec: pb::ExecOp,
    meta: pb::Meta,
    platform: Option<Platform>,
    inputs: Vec<Output>,
    mounts: Mounts,
    _staging: Staging,
    /// A first process was asked for.
    begun: AtomicBool,
    /// The first process; locked while it starts.
    first: tokio::sync::Mutex<Option<Arc<SandboxHandle>>>,
    /// Cancelled when the container is released.
    pub(super) released: CancellationToken,
}

/// What is the same for all processes of a container.
#[derive(Debug, Clone, Copy)]
struct Given<'a> {
    exec: &'a pb::ExecOp,
    meta: &'a pb::Meta,
    platform: Option<&'a Platform>,
    inputs: &'a [Output],
}

impl Containers {
    /// A container that was made and not released.
    pub(super) fn get(&self, id: &str) -> Option<Arc<Container>> {
        self.lock().get(id).cloned()
    }

    /// Releases a container: what runs in it is killed, and has ended on return.
    ///
    /// # Errors
    /// A container that is not there. Cancellation where something ran, as BuildKit says it.
    pub(super) async fn release(&self, id: &str) -> Result<(), Failure> {
        let container = self.lock().remove(id);
        let missing = || Failure::new(Code::NotFound, format!("container details for {id} not found"));
        match container.ok_or_else(missing)?.end().await {
            false => Ok(()),
            true => Err(Failure::of_export(&solver::ExecError::Canceled)),
        }
    }

    /// Releases all containers.
    pub(super) async fn release_all(&self) {
        let all = std::mem::take(&mut *self.lock());
        futures_util::future::join_all(all.values().map(|container| container.end())).await;
    }

    /// As [`Self::release_all`], without waiting.
    pub(super) fn kill_all(&self) {
        std::mem::take(&mut *self.lock()).values().for_each(|container| container.released.cancel());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Container {
    /// Kills what runs, and says whether anything did.
    async fn end(&self) -> bool {
        self.released.cancel();
        let Some(first) = self.first.lock().await.clone() else { return false };
        let running = first.try_wait().is_none();
        first.kill();
        // How it ended is told to whoever follows it.
        let _ended = blocking(move || first.wait()).await;
        running
    }

    fn given(&self) -> Given<'_> {
        let (exec, meta, platform) = (&self.exec, &self.meta, self.platform.as_ref());
        Given { exec, meta, platform, inputs: &self.inputs }
    }

    /// Whether a process was asked for before; from now on one was.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.swap(true, Ordering::AcqRel)
    }

    /// What the container's mount `index`, in the order of the request, shows now.
    pub(super) fn shown(&self, index: i32) -> Result<Shown, Failure> {
        let mounts = &self.exec.mounts;
        let mount = usize::try_from(index).ok().and_then(|index| mounts.get(index)).ok_or_else(|| {
            let message = format!("mount index {index} is out of bounds ({} available)", mounts.len());
            Failure::new(Code::InvalidArgument, message)
        })?;
        self.mounts.shown(&mount.dest).ok_or_else(|| {
            let message = format!("mount {index} at {} holds no files that could be read", mount.dest);
            Failure::new(Code::InvalidArgument, message)
        })
    }
}

impl Bridge {
    /// Makes a container.
    pub(super) async fn new_container(&self, request: NewContainerRequest) -> Result<(), Failure> {
        let taken = || {
            let message = format!("Container {} already exists", request.container_id);
            Failure::new(Code::AlreadyExists, message)
        };
        if self.containers.get(&request.container_id).is_some() {
            return Err(taken());
        }
        let mut inputs = Vec::new();
        let mut mounts = request.mounts;
        for mount in &mut mounts {
            (mount.input, mount.output) = (-1, -1);
            if !mount.result_id.is_empty() {
                mount.input = inputs.len() as i64;
                inputs.push(self.files(&mount.result_id).await?);
            }
            if !mount.dest.starts_with('/') {
                mount.dest.insert(0, '/');
            }
        }
        let meta =
            pb::Meta { extra_hosts: request.extra_hosts, hostname: request.hostname, ..pb::Meta::default() };
        let exec = pb::ExecOp { mounts, network: request.network, ..pb::ExecOp::default() };
        let released = self.run.cancel.child_token();
        // Checked now, so that what cannot be is said before anything is started in it.
        let nothing = pb::Meta { args: vec!["/".to_owned()], ..pb::Meta::default() };
        let nothing = InitMessage { meta: Some(nothing), ..InitMessage::default() };
        let platform = request.platform.as_ref().map(crate::llb::from_platform);
        let given = Given { exec: &exec, meta: &meta, platform: platform.as_ref(), inputs: &inputs };
        let (op, job) = self.job(given, &released, &nothing)?;
        let store = self.parts.store.clone();
        let staging = blocking(move || store.layers().staging()).await.map_err(|e| Failure::invalid(&e))?;
        let mounts = self.parts.worker.mounts(&op, &job, staging.path()).await;
        let container = Container {
            id: request.container_id.clone(),
            exec,
            meta,
            platform,
            inputs,
            mounts: mounts.map_err(|e| Failure::of_export(&e))?,
            _staging: staging,
            begun: AtomicBool::new(false),
            first: tokio::sync::Mutex::default(),
            released,
        };
        let mut all = self.containers.lock();
        if all.contains_key(&request.container_id) {
            return Err(taken());
        }
        all.insert(request.container_id.clone(), Arc::new(container));
        Ok(())
    }

    /// Starts a process in a container: the first one with the sandbox, the others in it.
    pub(super) async fn start(
        &self,
        container: &Container,
        init: &InitMessage,
        stdio: &Stdio,
    ) -> Result<Arc<SandboxHandle>, Failure> {
        let (op, job) = self.job(container.given(), &container.released, init)?;
        let tty = init.tty.then(TerminalSize::default);
        let (worker, mounts) = (&self.parts.worker, &container.mounts);
        let failed = |e| Failure::of_export(&e);
        let mut first = container.first.lock().await;
        if container.released.is_cancelled() {
            return Err(Failure::of_export(&solver::ExecError::Canceled));
        }
        let Some(running) = &*first else {
            mounts.make_working_dir(&op.meta.cwd).map_err(|e| Failure::invalid(&e))?;
            let mut spec = worker.spec(&op, &job, mounts).await.map_err(failed)?;
            spec.tty = tty;
            let spawned = self.parts.sandboxes.spawn(&spec, || stdio.try_clone());
            let handle = Arc::new(spawned.map_err(|e| Failure::new(Code::Unknown, causes(&e)))?);
            *first = Some(handle.clone());
            // Nobody joins before it runs.
            let starting = handle.clone();
            blocking(move || starting.started()).await;
            return Ok(handle);
        };
        if running.try_wait().is_some() {
            return Err(Failure::new(Code::Unknown, format!("container {} has stopped", container.id)));
        }
        let mut process = worker.process(&op, &job, mounts).await.map_err(failed)?;
        process.tty = tty;
        let joined = running.join(&process, stdio);
        let handle = joined.map_err(|e| Failure::new(Code::Unknown, causes(&e)))?;
        Ok(Arc::new(handle))
    }

    /// A process as a job of the worker, after the same checks as a step of a graph.
    fn job(
        &self,
        Given { exec, meta, platform, inputs }: Given<'_>,
        cancel: &CancellationToken,
        init: &InitMessage,
    ) -> Result<(ExecOp, Job), Failure> {
        let mut own = init.meta.clone().unwrap_or_default();
        own.extra_hosts.clone_from(&meta.extra_hosts);
        own.hostname.clone_from(&meta.hostname);
        if init.tty && !own.env.iter().any(|variable| variable.starts_with("TERM=")) {
            own.env.push("TERM=xterm".to_owned());
        }
        let exec = pb::ExecOp {
            meta: Some(own),
            security: init.security,
            secretenv: init.secretenv.clone(),
            ..exec.clone()
        };
        let op = crate::llb::exec_op(&exec, inputs.len()).map_err(|e| Failure::invalid(&e))?;
        let vertex = Vertex {
            op: Op::Exec(Box::new(op.clone())),
            inputs: Vec::new(),
            platform: platform.cloned(),
            constraints: Vec::new(),
            meta: VertexMeta::default(),
        };
        let mut graph = GraphBuilder::new();
        graph.add(vertex.clone()).map_err(|e| Failure::invalid(&e))?;
        check_policy(&mut graph.finish(None), &self.run)?;
        let mut cx = self.run.context(Progress::new(|_| {}));
        cx.cancel = cancel.clone();
        Ok((op, Job { vertex, inputs: inputs.to_vec(), in_result: false, cx }))
    }
}
