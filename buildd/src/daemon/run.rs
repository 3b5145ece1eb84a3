//! One build while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use solver::{
    Build, Edge, ExecError, Graph, Need, Output, Progress, SessionGroup, SolveError, VertexContext, VertexId,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::broken::{BrokenStep, Pieces};
use super::chains::Chains;
use super::entitlements::Entitlements;
use super::explain::Observer;
use super::failure::{EXCERPTS, Failure, Missing};
use super::journal::Journal;
use super::nearby::Nearby;
use super::policies::Policies;
use super::progress::Teller;
use super::remote_cache::RemoteCaches;

/// Frontends in images that a build may have running inside of each other.
const MAX_NESTED: usize = 8;

/// A running build.
#[derive(Debug)]
pub(super) struct Run {
    /// The client's ref.
    pub reference: String,
    /// The client's session.
    pub session: String,
    /// What was granted by both sides.
    pub entitlements: Entitlements,
    /// What the build tells.
    pub journal: Arc<Journal>,
    /// How it tells.
    pub teller: Teller,
    /// Ends it.
    pub cancel: CancellationToken,
    /// The solver's end of it.
    pub build: Build,
    /// The shared caches that it looks into.
    pub caches: Arc<RemoteCaches>,
    /// Sees what its graphs are keyed on.
    pub observer: Observer,
    nearby: Nearby,
    /// What its clients may look into of the steps that failed.
    pub pieces: Pieces,
    /// What its sources may be.
    pub policies: Policies,
    /// Frontends in images that may still be started inside of each other.
    pub frontends: Arc<Semaphore>,
    /// When it began.
    pub started: SystemTime,
    graphs: AtomicU64,
    /// The vertex that loaded the Dockerfile, which warnings refer to.
    first: std::sync::OnceLock<String>,
}

/// What a build may do and use.
#[derive(Debug)]
pub(super) struct Rights {
    /// What was granted by both sides.
    pub entitlements: Entitlements,
    /// What its sources may be.
    pub policies: Policies,
}

/// What a build works with.
#[derive(Debug)]
pub(super) struct Means {
    /// The solver's end of it.
    pub build: Build,
    /// The shared caches that it looks into.
    pub caches: Arc<RemoteCaches>,
    /// Finds what is like something that is missing.
    pub nearby: Nearby,
    /// Sees what its graphs are keyed on.
    pub observer: Observer,
}

impl Run {
    /// A build that tells `journal`.
    pub(super) fn new(
        reference: &str,
        session: &str,
        rights: Rights,
        journal: Arc<Journal>,
        cancel: CancellationToken,
        means: Means,
    ) -> Self {
        let Means { build, caches, nearby, observer } = means;
        let Rights { entitlements, policies } = rights;
        Self {
            reference: reference.to_owned(),
            session: session.to_owned(),
            entitlements,
            teller: Teller::new(journal.clone()),
            journal,
            cancel,
            build,
            caches,
            observer,
            nearby,
            pieces: Pieces::default(),
            policies,
            frontends: Arc::new(Semaphore::new(MAX_NESTED)),
            started: SystemTime::now(),
            graphs: AtomicU64::new(0),
            first: std::sync::OnceLock::new(),
        }
    }

    /// Evaluates one output of a graph.
    ///
    /// # Errors
    /// The vertex that failed, and where it stands.
    pub(super) async fn solve(&self, graph: &Arc<Graph>, head: Edge, need: Need) -> Result<Output, Failure> {
        let serial = self.graphs.fetch_add(1, Ordering::Relaxed);
        let digests = crate::llb::vertex_digests(graph);
        if serial == 0 {
            let _ = self.first.set(digests[head.vertex.index()].to_string());
        }
        let events = self.teller.graph(graph, serial, digests.clone());
        let events = self.observer.beside(events, graph, digests);
        let outputs = self.build.solve(graph.clone(), &[head], need, events).await;
        let mut outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => return Err(self.explained(graph, &error).await),
        };
        outputs.pop().ok_or_else(|| Failure::new(tonic::Code::Internal, "the solver gave no output"))
    }

    /// All that failed, with what is near where something is missing.
    async fn explained(&self, graph: &Arc<Graph>, error: &SolveError) -> Failure {
        let mut others = Vec::with_capacity(error.others.len());
        for (vertex, error) in error.others.iter().take(EXCERPTS - 1) {
            others.push(self.explained_one(graph, Some(*vertex), error).await);
        }
        let mut failure = self.explained_one(graph, error.vertex, &error.error).await.with_others(others);
        failure.step = error.vertex.map(|vertex| {
            let SolveError { error, input, remains, .. } = error.clone();
            Box::new(BrokenStep { graph: graph.clone(), vertex, error, input, remains })
        });
        failure
    }

    async fn explained_one(
        &self,
        graph: &Arc<Graph>,
        vertex: Option<VertexId>,
        error: &ExecError,
    ) -> Failure {
        let failure = Failure::of_graph(graph, vertex, error);
        let Some(missing) = vertex.and_then(|vertex| Missing::of(graph, vertex, error)) else {
            return failure;
        };
        match self.nearby.hint(self, graph, missing).await {
            Some(hint) => failure.hint(&hint),
            None => failure,
        }
    }

    /// Evaluates a graph's head; no head is scratch.
    ///
    /// # Errors
    /// As [`Self::solve`].
    pub(super) async fn evaluate(&self, graph: &Arc<Graph>, need: Need) -> Result<Output, Failure> {
        match graph.head {
            None => Ok(Output::scratch(Chains::empty())),
            Some(head) => self.solve(graph, head, need).await,
        }
    }

    /// The context of work that is no vertex.
    pub(super) fn context(&self, progress: Progress) -> VertexContext {
        VertexContext {
            build: self.reference.clone(),
            sessions: SessionGroup::of(&self.session),
            progress,
            cancel: self.cancel.clone(),
        }
    }

    /// The digest of the vertex that loaded the Dockerfile.
    pub(super) fn dockerfile_vertex(&self) -> String {
        self.first.get().cloned().unwrap_or_default()
    }
}
