//! What the daemon is made of, put together once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cache::context::Context;
use cache::store::Store;
use cache::tree::{Follow, TreePath};
use solver::{Engine, ExecError, Output, VertexContext};
use tokio::sync::Notify;

use super::chains::Chains;
use super::config::Config;
use super::diffids::DiffIds;
use super::explain::Explainer;
use super::export::{Built, Exporter, Results};
use super::failure::{self, Failure};
use super::gateway::Gateways;
use super::history::Histories;
use super::leases::Leases;
use super::locals::Locals;
use super::metrics::Metrics;
use super::mounting::Mounting;
use super::peer::Peer;
use super::provenance::Requests;
use super::sandboxes::Sandboxes;
use super::side::Passed;
use super::sources::Sources;
use super::sources::image::ImageSource;
use super::traces::Traces;
use super::worker::LocalWorker;
use crate::daemon::blocking::blocking;
use crate::session::SessionManager;

/// The daemon's parts.
#[derive(Debug)]
pub(super) struct Parts {
    /// The configuration file.
    pub config: Config,
    /// Everything durable.
    pub store: Store,
    /// Layers and trees.
    pub chains: Chains,
    /// The scheduler.
    pub engine: Engine,
    /// Open sessions.
    pub sessions: Arc<SessionManager>,
    /// Descriptors that clients passed.
    pub passed: Arc<Passed>,
    /// Directories of clients.
    pub locals: Arc<Locals>,
    /// What keeps things while builds run.
    pub leases: Arc<Leases>,
    /// Images.
    pub images: Arc<ImageSource>,
    /// All sources.
    pub sources: Arc<Sources>,
    /// Running and past builds.
    pub histories: Arc<Histories>,
    /// Why the steps of builds ran.
    pub explainer: Arc<Explainer>,
    /// Spans.
    pub traces: Arc<Traces>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Hands results on.
    pub exporter: Exporter,
    /// How the files of steps come together.
    pub mounting: Mounting,
    /// Hashes layers ahead.
    pub diff_ids: Arc<DiffIds>,
    /// Runs commands.
    pub sandboxes: Arc<Sandboxes>,
    /// Executes steps.
    pub worker: Arc<LocalWorker>,
    /// What provenance says besides.
    pub provenance_environment: Arc<serde_json::Map<String, serde_json::Value>>,
    /// What builds may ask for, if their clients allow it.
    pub entitlements: Vec<String>,
    /// Clients that are their own frontends.
    pub gateways: Gateways,
    /// Whose results clients have.
    pub requests: Requests,
    /// Told when there may be garbage.
    pub garbage: Arc<Notify>,
    /// A checkpoint is going to be made.
    pub checkpointing: Arc<AtomicBool>,
}

impl Parts {
    /// What the builds of a client may ask for.
    pub(super) fn entitlements_of(&self, client: &Peer) -> Vec<String> {
        client.may_ask_for(&self.entitlements, &self.config.grpc.entitlements)
    }

    /// Reads a small file of an output, links followed within it; `None` where there is none.
    ///
    /// # Errors
    /// When it is larger than `limit` bytes, no regular file, or cannot be read.
    pub(super) async fn read_file(
        &self,
        output: &Output,
        path: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let path = path.to_owned();
        if let Some(context) = output.local.and_then(|l| self.locals.get(l)) {
            return blocking(move || read_context(&context, &path, limit)).await;
        }
        let base =
            self.chains.base(output).map_err(|e| Failure::new(tonic::Code::Unknown, failure::text(&e)))?;
        blocking(move || base.view.read_small(path.as_bytes(), limit).map_err(|e| Failure::invalid(&e))).await
    }

    /// The beginning of a file in the layers of an output, at most `len` bytes; nothing where there is no such file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn read_head(&self, output: &Output, path: &str, len: u64) -> Result<Vec<u8>, Failure> {
        let base =
            self.chains.base(output).map_err(|e| Failure::new(tonic::Code::Unknown, failure::text(&e)))?;
        let path = path.to_owned();
        blocking(move || base.view.read_head(path.as_bytes(), len).map_err(|e| Failure::invalid(&e))).await
    }

    /// The worker's name, the same at each start over the same root.
    pub(super) fn worker_id(&self) -> String {
        solver::Digest::of(self.store.root().as_os_str().as_encoded_bytes()).hex()[..25].to_owned()
    }

    /// Makes what was built survive a power cut, after the client has been answered; quick builds share one.
    pub(super) fn checkpoint_soon(&self) {
        if self.checkpointing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (store, pending, garbage) =
            (self.store.clone(), self.checkpointing.clone(), self.garbage.clone());
        tokio::spawn(async move {
            tokio::time::sleep(store.checkpoint_due_in()).await;
            pending.store(false, Ordering::Release);
            if let Err(e) = blocking(move || store.checkpoint()).await {
                tracing::warn!("checkpoint failed: {e}");
            }
            garbage.notify_one();
        });
    }

    /// Brings in all layers of results; gives these with their contents known.
    ///
    /// # Errors
    /// A base image that cannot be pulled any more.
    pub(super) async fn fetch_layers(
        &self,
        results: &Results,
        cx: &VertexContext,
    ) -> Result<Results, ExecError> {
        let mut fetched = results.clone();
        for Built { output, .. } in &mut fetched.built {
            let content = self.images.fetch_chain(&output.chain, cx).await?;
            // What is an image as it came was not looked into before.
            output.content = output.content.or(content);
        }
        Ok(fetched)
    }

    /// Forgets all that was kept in memory for a build.
    pub(super) fn forget(&self, build: &str) {
        self.locals.forget(build);
        self.images.forget(build);
        self.sources.forget(build);
        self.requests.forget(build);
        self.worker.travels.forget(build);
    }
}

fn read_context(context: &Context, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
    let Ok(found) = context.trees.resolve(&context.root, path.as_bytes(), Follow::Last) else {
        return Ok(None);
    };
    if found.node.is_none() {
        return Ok(None);
    }
    let real: TreePath = found.path;
    let read = || {
        context.init_thread();
        let mut data = Vec::new();
        let file = context.open(&real)?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, limit + 1), &mut data)?;
        Ok::<_, std::io::Error>(data)
    };
    let data = match context.has_identity() {
        // A thread of its own: it takes on the client's identity.
        true => std::thread::scope(|scope| scope.spawn(read).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        false => read(),
    };
    let data =
        data.map_err(|e| Failure::new(tonic::Code::Unknown, format!("failed to read `{path}`: {e}")))?;
    if data.len() as u64 > limit {
        return Err(Failure::new(
            tonic::Code::InvalidArgument,
            format!("`{path}` is larger than {limit} bytes"),
        ));
    }
    Ok(Some(data))
}
