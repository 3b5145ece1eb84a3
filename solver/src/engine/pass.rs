//! The second and third parts of a pass: outputs known, layers present.

mod chain;
mod execute;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, try_join_all};
use tokio_util::sync::CancellationToken;

use super::{BuildState, Inner, Need, SolveError};
use crate::digest::Digest;
use crate::graph::{Edge, Graph, Vertex, VertexId};
use crate::key::{self, Use};
use crate::op::Op;
use crate::record::{Key, Record};
use crate::session::SessionGroup;
use crate::traits::{Event, EventSink, ExecError, Output, Progress, SourceAnswer, VertexContext};

/// The outputs of a vertex by index.
pub(super) type Outputs = Arc<BTreeMap<u32, Output>>;
type Answer = Shared<BoxFuture<'static, Result<Outputs, Stop>>>;

/// Why a pass ended early.
#[derive(Debug, Clone)]
pub(super) enum Stop {
    /// Something that was pinned is no longer so: look again.
    Again,
    /// A vertex failed.
    Failed(SolveError),
}

impl Stop {
    pub(super) fn from_exec(vertex: VertexId, error: ExecError) -> Self {
        match error {
            ExecError::Changed { .. } => Self::Again,
            error => Self::Failed(SolveError { vertex: Some(vertex), error }),
        }
    }

    pub(super) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed(SolveError { vertex: None, error: ExecError::failed(error) })
    }
}

/// What a pass knows of one vertex.
pub(super) struct Node {
    pub(super) op: Digest,
    pub(super) uses: Vec<Use>,
    pub(super) answer: OnceLock<SourceAnswer>,
    pub(super) definition: OnceLock<Key>,
    pub(super) hit: OnceLock<Arc<Record>>,
    answers: [OnceLock<Answer>; 3],
    told: AtomicBool,
}

/// One evaluation of one graph for one build.
pub(super) struct Pass {
    pub(super) engine: Arc<Inner>,
    pub(super) build: Arc<BuildState>,
    pub(super) graph: Arc<Graph>,
    pub(super) cancel: CancellationToken,
    events: Arc<dyn EventSink>,
    nodes: Vec<Node>,
    /// The vertices whose layers are in the chains of what is wanted.
    in_result: Vec<bool>,
}

impl Pass {
    pub(super) fn new(
        engine: Arc<Inner>,
        build: Arc<BuildState>,
        graph: Arc<Graph>,
        wanted: &[Edge],
        events: Arc<dyn EventSink>,
    ) -> Arc<Self> {
        let node = |v: &Vertex| Node {
            op: key::op_digest(v),
            uses: key::input_uses(v),
            answer: OnceLock::new(),
            definition: OnceLock::new(),
            hit: OnceLock::new(),
            answers: Default::default(),
            told: AtomicBool::new(false),
        };
        let nodes = graph.vertices().iter().map(node).collect();
        let in_result = chain::in_chains(&graph, wanted);
        let cancel = build.cancel.child_token();
        Arc::new(Self { engine, build, graph, cancel, events, nodes, in_result })
    }

    pub(super) fn node(&self, id: VertexId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(super) fn tell(&self, id: VertexId, event: Event) {
        self.events.event(id, event);
    }

    /// A context for work that only this build waits for.
    pub(super) fn context(&self, id: VertexId) -> VertexContext {
        let events = self.events.clone();
        VertexContext {
            build: self.build.id.clone(),
            sessions: SessionGroup::of(&self.build.session),
            progress: Progress::new(move |u| events.event(id, Event::Update(u))),
            cancel: self.cancel.clone(),
        }
    }

    /// The outputs behind `edges`, in order.
    pub(super) async fn outputs_of(
        self: &Arc<Self>,
        edges: &[Edge],
        need: Need,
    ) -> Result<Vec<Output>, Stop> {
        try_join_all(edges.iter().map(|e| self.output(*e, need))).await
    }

    pub(super) async fn output(self: &Arc<Self>, edge: Edge, need: Need) -> Result<Output, Stop> {
        let outputs = self.demand(edge.vertex, need).await?;
        outputs.get(&edge.output).cloned().ok_or_else(|| {
            let error = ExecError::failed(NoSuchOutput { output: edge.output });
            Stop::Failed(SolveError { vertex: Some(edge.vertex), error })
        })
    }

    /// Evaluates a vertex once per level, in a task of its own: a chain of any length needs no deep stack.
    fn demand(self: &Arc<Self>, id: VertexId, need: Need) -> Answer {
        self.node(id).answers[need as usize]
            .get_or_init(|| {
                let me = self.clone();
                let task = tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = me.cancel.cancelled() => Err(Stop::from_exec(id, ExecError::Canceled)),
                        r = me.evaluate(id, need) => r,
                    }
                });
                async move { task.await.unwrap_or_else(|e| Err(Stop::internal(e))) }.boxed().shared()
            })
            .clone()
    }

    async fn evaluate(self: &Arc<Self>, id: VertexId, need: Need) -> Result<Outputs, Stop> {
        if matches!(self.graph.vertex(id).op, Op::Source(_)) {
            return self.source(id, need).await;
        }
        match need {
            Need::Known => self.known(id).await,
            Need::Available | Need::Present => self.present(id, need).await,
        }
    }

    async fn source(&self, id: VertexId, need: Need) -> Result<Outputs, Stop> {
        let vertex = self.graph.vertex(id);
        let (Op::Source(op), Some(answer)) = (&vertex.op, self.node(id).answer.get()) else {
            return Err(Stop::internal(super::plan::NoContent));
        };
        // A directory that no layer holds is good for reading only.
        let enough =
            |known: &Output| need == Need::Known || (need == Need::Available && known.local.is_none());
        if let Some(known) = answer.output.as_ref().filter(|known| enough(known)) {
            return Ok(Arc::new(BTreeMap::from([(0, known.clone())])));
        }
        self.tell(id, Event::Started(SystemTime::now()));
        let fetched = self.engine.source.fetch(op, vertex.platform.as_ref(), answer, &self.context(id)).await;
        self.tell(id, Event::Completed(SystemTime::now(), fetched.as_ref().err().map(ToString::to_string)));
        Ok(Arc::new(BTreeMap::from([(0, fetched.map_err(|e| Stop::from_exec(id, e))?)])))
    }

    async fn known(self: &Arc<Self>, id: VertexId) -> Result<Outputs, Stop> {
        if let Some(record) = self.node(id).hit.get() {
            self.tell_cached(id);
            return self.outputs(id, record).await;
        }
        let key = self.content_key(id).await?;
        if !self.graph.vertex(id).meta.ignore_cache {
            let found = self.engine.records.lookup(&[key]).await.map_err(Stop::internal)?;
            if let Some(record) = found.into_iter().next().flatten() {
                let record = Arc::new(record);
                if let Some(&definition) = self.node(id).definition.get() {
                    self.engine.records.alias(definition, key).await.map_err(Stop::internal)?;
                    self.build.pin(definition, record.clone());
                }
                self.tell_cached(id);
                return self.outputs(id, &record).await;
            }
        }
        let record = self.execute(id, key, None).await?;
        self.outputs(id, &record).await
    }

    /// Makes sure of the layers behind known outputs; what is gone is made again, and the pass ends.
    async fn present(self: &Arc<Self>, id: VertexId, need: Need) -> Result<Outputs, Stop> {
        let known = self.demand(id, Need::Known).await?;
        let below: Vec<Edge> = chain::inputs(self.graph.vertex(id));
        try_join_all(below.iter().map(|e| self.output(*e, need))).await?;
        let Some(record) = self.node(id).definition.get().and_then(|k| self.build.pinned(k)) else {
            return Ok(known);
        };
        for layer in record.outputs.values().filter_map(|o| o.layer) {
            if !self.engine.worker.available(layer).await {
                let key = self.content_key(id).await?;
                self.execute(id, key, Some(record)).await?;
                return Err(Stop::Again);
            }
        }
        Ok(known)
    }

    /// The content key: every input counted by what it contains.
    async fn content_key(self: &Arc<Self>, id: VertexId) -> Result<Key, Stop> {
        let node = self.node(id);
        let inputs = self.graph.vertex(id).inputs.iter().zip(&node.uses);
        let digests = try_join_all(inputs.map(|(e, used)| self.contains(id, *e, used))).await?;
        Ok(key::content_key(&node.op, &digests))
    }

    async fn contains(self: &Arc<Self>, user: VertexId, edge: Edge, used: &Use) -> Result<Digest, Stop> {
        let mut output = self.output(edge, Need::Known).await?;
        if output.content.is_none() {
            output = self.output(edge, Need::Present).await?;
        }
        match (used, output.content) {
            (Use::Rootfs, Some(content)) => Ok(content),
            (Use::Rootfs, None) => Err(Stop::internal(super::plan::NoContent)),
            (Use::Selected(list), _) => {
                self.engine.worker.selection_digest(&output, list).await.map_err(|e| Stop::from_exec(user, e))
            }
        }
    }

    /// Tells that the vertex and all that stands on record below it came from the cache.
    fn tell_cached(&self, id: VertexId) {
        let (mut todo, mut cached) = (vec![id], Vec::new());
        while let Some(id) = todo.pop() {
            let node = self.node(id);
            if matches!(self.graph.vertex(id).op, Op::Source(_)) || node.told.swap(true, Ordering::Relaxed) {
                continue;
            }
            cached.push(id);
            todo.extend(
                self.graph
                    .vertex(id)
                    .inputs
                    .iter()
                    .map(|e| e.vertex)
                    .filter(|v| self.node(*v).hit.get().is_some()),
            );
        }
        // In the order of the graph, inputs first, as they would have run.
        cached.sort_unstable();
        for id in cached {
            self.tell(id, Event::Cached(SystemTime::now()));
        }
    }

    pub(super) fn mark_told(&self, id: VertexId) {
        self.node(id).told.store(true, Ordering::Relaxed);
    }
}

/// A graph asks for an output that the vertex does not have.
#[derive(Debug, thiserror::Error)]
#[error("the operation has no output {output}")]
struct NoSuchOutput {
    output: u32,
}
