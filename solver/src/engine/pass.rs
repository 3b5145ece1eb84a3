//! The second and third parts of a pass: outputs known, layers present.

mod chain;
mod elsewhere;
mod execute;
mod findings;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, try_join_all};
use tokio_util::sync::CancellationToken;

use super::{BuildState, Inner, Need, SolveError};
use crate::digest::Digest;
use crate::graph::{Edge, Graph, Vertex, VertexId};
use crate::holders::Hold;
use crate::key::{self, Use};
use crate::op::Op;
use crate::record::{Key, OutputRecord, Put, Record, StandsOn};
use crate::redact::redacted;
use crate::session::SessionGroup;
use crate::traits::{
    Event, EventSink, ExecError, ExecFailure, Output, Progress, SourceAnswer, VertexContext,
};

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
            error => Self::Failed(SolveError::new(Some(vertex), error)),
        }
    }

    /// The execution of a vertex failed.
    pub(super) fn from_failure(vertex: VertexId, failure: ExecFailure) -> Self {
        match Self::from_exec(vertex, failure.error) {
            Self::Failed(error) => Self::Failed(SolveError { remains: failure.remains, ..error }),
            Self::Again => Self::Again,
        }
    }

    /// An input of a vertex cannot be told from others.
    fn from_input(vertex: VertexId, input: usize, error: ExecError) -> Self {
        match Self::from_exec(vertex, error) {
            Self::Failed(error) => Self::Failed(SolveError { input: Some(input), ..error }),
            Self::Again => Self::Again,
        }
    }

    pub(super) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed(SolveError::new(None, ExecError::failed(error)))
    }
}

/// What a pass knows of one vertex.
pub(super) struct Node {
    pub(super) op: Digest,
    pub(super) uses: Vec<Use>,
    pub(super) answer: OnceLock<SourceAnswer>,
    pub(super) definition: OnceLock<Key>,
    /// What answers it: found by the plan, or later.
    pub(super) record: OnceLock<Arc<Record>>,
    /// The record is lent by others.
    lent: OnceLock<()>,
    /// What the record was made on, where it was found by definition.
    pub(super) stood_on: OnceLock<StandsOn>,
    /// What others know it to give, where no record answers it.
    found: OnceLock<Outputs>,
    /// It stands on what is executed in any case: its definition tells nothing.
    pub(super) above_forced: OnceLock<()>,
    /// How it was executed, if it was.
    executed: Mutex<Option<findings::Noted>>,
    answers: [OnceLock<Answer>; 3],
    /// How much was told of it; see `tell`.
    told: AtomicU8,
    /// Its coming from a cache elsewhere was told, with all below it.
    swept: AtomicBool,
}

/// How often a vertex is made again in one pass; a second time only when what others made meanwhile is gone, too.
const MAX_REMAKES: usize = 3;

/// One evaluation of one graph for one build.
pub(super) struct Pass {
    pub(super) engine: Arc<Inner>,
    pub(super) build: Arc<BuildState>,
    pub(super) graph: Arc<Graph>,
    pub(super) cancel: CancellationToken,
    /// The build's epoch when the pass began.
    pub(super) epoch: u64,
    events: Arc<dyn EventSink>,
    wanted: Vec<Edge>,
    nodes: Vec<Node>,
    /// The vertices whose layers are in the chains of what is wanted.
    in_result: Vec<bool>,
    /// Which outputs of each vertex are used.
    used: Vec<BTreeSet<u32>>,
    /// What the sources are, once the plan is made.
    sources: OnceLock<Vec<Option<SourceAnswer>>>,
    /// What each vertex is, whatever graph it is in.
    shapes: Vec<Digest>,
    /// Some vertex goes by a record that others lend.
    any_lent: AtomicBool,
    /// The build's session serves all of them while the pass lives.
    _hold: Hold,
}

impl Pass {
    pub(super) fn new(
        engine: Arc<Inner>,
        build: Arc<BuildState>,
        graph: Arc<Graph>,
        wanted: &[Edge],
        events: Arc<dyn EventSink>,
    ) -> Arc<Self> {
        let node = |v: &Vertex| {
            let uses = key::input_uses(v);
            Node {
                op: key::op_digest(v, &uses),
                uses,
                answer: OnceLock::new(),
                definition: OnceLock::new(),
                record: OnceLock::new(),
                lent: OnceLock::new(),
                stood_on: OnceLock::new(),
                found: OnceLock::new(),
                above_forced: OnceLock::new(),
                executed: Mutex::default(),
                answers: Default::default(),
                told: AtomicU8::default(),
                swept: AtomicBool::default(),
            }
        };
        let nodes: Vec<Node> = graph.vertices().iter().map(node).collect();
        let shapes = key::shapes(&graph, nodes.iter().map(|node| node.op));
        let hold = engine.holders.hold(&build.session, shapes.clone());
        let in_result = chain::in_chains(&graph, wanted);
        let used = graph.used_outputs(wanted);
        let (cancel, epoch) = (build.cancel.child_token(), build.epoch());
        Arc::new(Self {
            engine,
            build,
            graph,
            cancel,
            epoch,
            events,
            wanted: wanted.to_vec(),
            nodes,
            in_result,
            used,
            sources: OnceLock::new(),
            shapes,
            any_lent: AtomicBool::default(),
            _hold: hold,
        })
    }

    /// Whether it runs although a record may answer it: because it ignores the cache, or because what it stands on does. What only
    /// reads paths of such a vertex, or stands on it at further remove, is found by content (as in BuildKit).
    pub(super) fn is_forced(&self, id: VertexId) -> bool {
        let vertex = self.graph.vertex(id);
        let stands_on = |(edge, used): (&Edge, &Use)| {
            !matches!(used, Use::Selected(_)) && self.graph.vertex(edge.vertex).meta.ignore_cache
        };
        vertex.meta.ignore_cache || vertex.inputs.iter().zip(&self.node(id).uses).any(stands_on)
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
        try_join_all(edges.iter().map(|e| self.used(*e, need))).await
    }

    /// An output whose files or digest are looked at, which is when BuildKit loads it from its cache and says so.
    pub(super) async fn used(self: &Arc<Self>, edge: Edge, need: Need) -> Result<Output, Stop> {
        let output = self.output(edge, need).await?;
        self.tell_loaded(edge.vertex);
        Ok(output)
    }

    pub(super) async fn output(self: &Arc<Self>, edge: Edge, need: Need) -> Result<Output, Stop> {
        let outputs = self.demand(edge.vertex, need).await?;
        outputs.get(&edge.output).cloned().ok_or_else(|| {
            let error = ExecError::failed(NoSuchOutput { output: edge.output });
            Stop::Failed(SolveError::new(Some(edge.vertex), error))
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
        let here = self.is_here(answer).await || self.was_fetched(id, answer).await?;
        // Every level of need comes here, and after the first one all lies here.
        let quiet = here && self.node(id).told.load(Ordering::Relaxed) == tell::TOLD;
        let shown = (!quiet).then(|| self.begin(id));
        let fetched = self.engine.source.fetch(op, vertex.platform.as_ref(), answer, &self.context(id)).await;
        match shown {
            Some(shown) if here && fetched.is_ok() => shown.cached(),
            Some(shown) => shown.end(fetched.as_ref().err()),
            None => {}
        }
        self.mark_told(id);
        let fetched = fetched.map_err(|e| Stop::from_exec(id, e))?;
        if !here {
            self.note_fetched(id, answer, &fetched).await?;
        }
        Ok(Arc::new(BTreeMap::from([(0, fetched)])))
    }

    /// Whether what a download or a checkout gives was made before and still lies here.
    async fn was_fetched(&self, id: VertexId, answer: &SourceAnswer) -> Result<bool, Stop> {
        Ok(self.noted(id, answer).await?.is_some())
    }

    /// The record of what a source gave when it was fetched, where its layers still lie here.
    async fn noted(&self, id: VertexId, answer: &SourceAnswer) -> Result<Option<Record>, Stop> {
        let (None, Some(&key)) = (&answer.output, self.node(id).definition.get()) else { return Ok(None) };
        let found = self.engine.records.lookup(&[key]).await.map_err(Stop::internal)?;
        match found.into_iter().flatten().next() {
            Some(kept) if self.has_layers(&kept.record).await => Ok(Some(kept.record)),
            _ => Ok(None),
        }
    }

    /// What a source without a known output gave when it was fetched, where it still lies here.
    async fn fetched_before(&self, id: VertexId, answer: &SourceAnswer) -> Result<Option<Output>, Stop> {
        let vertex = self.graph.vertex(id);
        let Op::Source(op) = &vertex.op else { return Ok(None) };
        let scheme = op.scheme_and_ref().0;
        let Some(record) = self.noted(id, answer).await? else { return Ok(None) };
        match scheme {
            // Of one layer at most.
            "git" | "http" | "https" | "docker-image+blob" | "oci-layout+blob" => {
                Ok(record.outputs.get(&0).map(|made| Output {
                    chain: made.layer.into_iter().collect(),
                    content: Some(made.content),
                    local: None,
                }))
            }
            // The record has the topmost layer only; whoever has that has those below, as a rule.
            "oci-layout" => {
                let (platform, cx) = (vertex.platform.as_ref(), self.context(id));
                Ok(self.engine.source.fetch(op, platform, answer, &cx).await.ok())
            }
            _ => Ok(None),
        }
    }

    /// Leaves a record of what a source without a known output gave, for [`Self::noted`] alone.
    async fn note_fetched(&self, id: VertexId, answer: &SourceAnswer, fetched: &Output) -> Result<(), Stop> {
        let (None, Some(&key), Some(content)) =
            (&answer.output, self.node(id).definition.get(), fetched.content)
        else {
            return Ok(());
        };
        let output = OutputRecord { content, layer: fetched.chain.last().copied() };
        let created_ms =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let name = redacted(self.graph.vertex(id).meta.custom_name().unwrap_or_default()).into_owned();
        let record = Record { outputs: BTreeMap::from([(0, output)]), created_ms, took_ms: 0, name };
        let current = self.engine.records.lookup(&[key]).await.map_err(Stop::internal)?;
        let how = Put::Replace(current.into_iter().next().flatten().map(|kept| kept.record));
        self.engine.records.put(key, &[], record, how).await.map_err(Stop::internal)?;
        Ok(())
    }

    /// Whether a source's files are on this machine from before.
    async fn is_here(&self, answer: &SourceAnswer) -> bool {
        let Some(Output { chain, content: Some(_), local: None }) = &answer.output else { return false };
        for layer in chain.iter() {
            if !self.engine.worker.available(*layer, &self.build.id).await {
                return false;
            }
        }
        true
    }

    async fn known(self: &Arc<Self>, id: VertexId) -> Result<Outputs, Stop> {
        if let Some(record) = self.node(id).record.get() {
            self.tell_cached(id);
            return self.outputs(id, record, Need::Known).await;
        }
        let record = match self.pinned_meanwhile(id) {
            Some(record) => record,
            None => {
                if let Some(found) = self.find_by_definition(id).await {
                    return Ok(found);
                }
                let key = self.content_key(id).await?;
                match self.by_content(id, key).await? {
                    Some(record) => record,
                    None => match self.borrow_by_content(id, key).await {
                        Some(record) => record,
                        None => match self.find_by_content(id).await? {
                            Some(found) => return Ok(found),
                            None => self.execute(id, key, None).await?,
                        },
                    },
                }
            }
        };
        let record = self.node(id).record.get_or_init(|| record);
        self.tell_cached(id);
        self.outputs(id, record, Need::Known).await
    }

    /// The record of the content key, which the definition key names from then on.
    async fn by_content(self: &Arc<Self>, id: VertexId, key: Key) -> Result<Option<Arc<Record>>, Stop> {
        if self.is_forced(id) {
            return Ok(None);
        }
        let found = self.engine.records.lookup(&[key]).await.map_err(Stop::internal)?;
        let Some(record) = found.into_iter().next().flatten().map(|kept| Arc::new(kept.record)) else {
            return Ok(None);
        };
        if let Some(&definition) = self.node(id).definition.get() {
            if let Some(name) = self.own_name(id).await? {
                self.engine.records.alias(name, key).await.map_err(Stop::internal)?;
            }
            return Ok(Some(self.build.pin(self.epoch, definition, &record)));
        }
        Ok(Some(record))
    }

    /// Makes sure of the layers behind known outputs; what is gone is made again.
    async fn present(self: &Arc<Self>, id: VertexId, need: Need) -> Result<Outputs, Stop> {
        let known = self.demand(id, Need::Known).await?;
        if self.node(id).found.get().is_some() {
            return if need == Need::Present { self.fetch_found(id, &known).await } else { Ok(known) };
        }
        let Some(found) = self.node(id).record.get() else { return Ok(known) };
        let below = chain::inputs(self.graph.vertex(id));
        let chains = try_join_all(below.iter().map(|e| self.chain(*e, need))).await?;
        let before = try_join_all(below.iter().map(|e| self.output(*e, Need::Known))).await?;
        let moved = chains.iter().zip(&before).any(|(now, before)| !Arc::ptr_eq(now, &before.chain));
        if let Some(stood_on) = self.node(id).stood_on.get()
            && let Some(other) = self.other_below(id, stood_on).await?
        {
            // What was not known when the plan was made has come out different.
            return Err(self.renew(other));
        }
        // At another level, or for another graph, the vertex may have been made again already.
        let mut record = self.pinned_meanwhile(id).unwrap_or_else(|| found.clone());
        if contents(&record).ne(contents(found)) {
            return Err(self.renew(id));
        }
        for _ in 0..MAX_REMAKES {
            if self.is_at_hand(id, &record, need).await? {
                let unchanged = Arc::ptr_eq(&record, found) && !moved;
                return if unchanged { Ok(known) } else { self.outputs(id, &record, need).await };
            }
            let key = self.content_key(id).await?;
            record = self.execute(id, key, Some(record)).await?;
            if contents(&record).ne(contents(found)) {
                return Err(self.renew(id));
            }
        }
        Err(Stop::Again)
    }

    /// Whether the layers of a vertex's record are here, or for a lent one come in now, as far as `need` says.
    async fn is_at_hand(self: &Arc<Self>, id: VertexId, record: &Record, need: Need) -> Result<bool, Stop> {
        match self.node(id).lent.get() {
            Some(()) => self.bring(id, record, need).await,
            None => Ok(self.has_layers(record).await),
        }
    }

    async fn has_layers(&self, record: &Record) -> bool {
        for layer in record.outputs.values().filter_map(|o| o.layer) {
            if !self.engine.worker.available(layer, &self.build.id).await {
                return false;
            }
        }
        true
    }

    /// What another pass of this build, over the same contents, has come to hold to since this one was planned.
    fn pinned_meanwhile(&self, id: VertexId) -> Option<Arc<Record>> {
        let pin = self.build.pinned_in(self.epoch, self.node(id).definition.get()?)?;
        if pin.lent {
            self.mark_lent(id);
        }
        Some(pin.record)
    }

    /// Ends the pass because a vertex made again has another content: what stands on it is evaluated anew.
    fn renew(&self, changed: VertexId) -> Stop {
        if let Some(&key) = self.node(changed).definition.get() {
            self.build.renew(key);
        }
        Stop::Again
    }

    /// The content key: every input counted by what it contains.
    async fn content_key(self: &Arc<Self>, id: VertexId) -> Result<Key, Stop> {
        let node = self.node(id);
        let inputs = self.graph.vertex(id).inputs.iter().zip(&node.uses).enumerate();
        let digests = try_join_all(inputs.map(|(i, (e, used))| self.contains((id, i), *e, used))).await?;
        Ok(key::content_key(&node.op, &digests))
    }

    async fn contains(
        self: &Arc<Self>,
        (user, input): (VertexId, usize),
        edge: Edge,
        used: &Use,
    ) -> Result<Digest, Stop> {
        let mut output = self.output(edge, Need::Known).await?;
        // The tree of what others lend may not be here.
        let is_lent = || self.node(edge.vertex).lent.get().is_some() && matches!(used, Use::Selected(_));
        if output.content.is_none() || *used == Use::Layers || is_lent() {
            output = self.output(edge, Need::Present).await?;
        }
        self.tell_loaded(edge.vertex);
        match (used, output.content) {
            (Use::Rootfs, Some(content)) => Ok(content),
            (Use::Layers, Some(content)) => Ok(key::layers_digest(&content, &output.chain)),
            (Use::Rootfs | Use::Layers, None) => Err(Stop::internal(super::plan::NoContent)),
            (Use::Selected(list), _) => {
                let digest = self.engine.worker.selection_digest(&output, list).await;
                digest.map_err(|e| Stop::from_input(user, input, e))
            }
        }
    }
}

/// What a record's outputs contain.
fn contents(record: &Record) -> impl Iterator<Item = (u32, Digest)> {
    record.outputs.iter().map(|(index, output)| (*index, output.content))
}

/// A graph asks for an output that the vertex does not have.
#[derive(Debug, thiserror::Error)]
#[error("the operation has no output {output}")]
struct NoSuchOutput {
    output: u32,
}
