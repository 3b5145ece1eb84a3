//! The scheduler: evaluates a graph, executing only what no record answers.
//!
//! A pass over a graph has three parts. *Plan*: sources are pinned, definition keys computed and looked up in one
//! batch. *Known*: each wanted vertex gets its outputs from a record, by its definition key or, where that misses,
//! by its content key, or by execution. *Present*: the layers behind the outputs are brought in.
//! A layer that is gone is made again within the pass. A pass that finds its own answers outdated (a step made anew
//! gave another content, a file changed meanwhile) ends and another begins; what was executed is on record by then, so
//! passes only move forward.

mod pass;
mod plan;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::flight::Flights;
use crate::graph::{Edge, Graph, VertexId};
use crate::holders::{Hold, Holders};
use crate::key;
use crate::record::{Key, Record, RecordStore, StandsOn};
use crate::traits::{
    Elsewhere, Event, EventSink, ExecError, Made, Output, Remains, Source, SourceAnswer, Worker,
};
use pass::{Pass, Stop};

/// A pass heals at least one vertex or file before it asks for another; more than this many is a moving target.
const MAX_PASSES: usize = 64;

/// Evaluates the graphs of all builds of one daemon.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) records: Arc<dyn RecordStore>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) worker: Arc<dyn Worker>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) holders: Arc<Holders>,
    pub(crate) slots: Arc<Semaphore>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// How much of an output a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Which layers it is made of.
    Known = 0,
    /// Also, every layer made by a step exists on this machine; an image's own layers may stay where they are.
    Available = 1,
    /// All layers are on this machine.
    Present = 2,
}

/// One build: it pins each answer that it gets, over any number of graphs.
#[derive(Clone, Debug)]
pub struct Build {
    engine: Engine,
    state: Arc<BuildState>,
}

pub(crate) struct BuildState {
    pub(crate) id: String,
    pub(crate) session: String,
    pub(crate) begun: u64,
    pub(crate) cancel: CancellationToken,
    /// Whom the build asks besides the engine's own records.
    pub(crate) elsewhere: Option<Arc<dyn Elsewhere>>,
    answers: Mutex<Answers>,
}

impl std::fmt::Debug for BuildState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildState").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a build holds to.
#[derive(Debug, Default)]
struct Answers {
    /// How often a content has turned out to be another one.
    epoch: u64,
    /// By definition key.
    pins: HashMap<Key, Pin>,
    /// Definition keys of vertices that turned out to have another content, with the epoch that began then: older answers for
    /// what stands on them, and records by definition, go by the former content.
    renewed: HashMap<Key, u64>,
    /// Definition keys of vertices whose lent results could not be had.
    refused: HashSet<Key>,
}

/// An answer that a build holds to.
#[derive(Debug, Clone)]
pub(crate) struct Pin {
    pub(crate) record: Arc<Record>,
    /// Of the pass that found it.
    pub(crate) epoch: u64,
    /// It is no record of this machine: what it gives may have to be brought in.
    pub(crate) lent: bool,
    /// What it was made on, where it was found by definition.
    pub(crate) stood_on: Option<StandsOn>,
}

/// A graph could not be evaluated.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct SolveError {
    /// The vertex that failed, if it was one.
    pub vertex: Option<VertexId>,
    /// Why.
    #[source]
    pub error: ExecError,
    /// The input of the vertex that could not be told from others, if that is why.
    pub input: Option<usize>,
    /// What is left of its execution.
    pub remains: Option<Remains>,
    /// What else would fail, as far as it is known before anything runs.
    pub others: Vec<(VertexId, ExecError)>,
}

impl SolveError {
    /// A vertex that failed, or the build as a whole.
    pub fn new(vertex: Option<VertexId>, error: ExecError) -> Self {
        Self { vertex, error, input: None, remains: None, others: Vec::new() }
    }
}

impl Engine {
    /// An engine that executes at most `parallelism` vertices at a time.
    pub fn new(
        records: Arc<dyn RecordStore>,
        source: Arc<dyn Source>,
        worker: Arc<dyn Worker>,
        parallelism: usize,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(parallelism.max(1)));
        let (flights, holders) = Default::default();
        Self { inner: Arc::new(Inner { records, source, worker, flights, holders, slots }) }
    }

    /// Begins a build that asks `session` for credentials and secrets, until `cancel`, and `elsewhere` for results that
    /// no record has.
    pub fn begin(
        &self,
        id: &str,
        session: &str,
        cancel: CancellationToken,
        elsewhere: Option<Arc<dyn Elsewhere>>,
    ) -> Build {
        let state = BuildState {
            id: id.to_owned(),
            session: session.to_owned(),
            begun: self.inner.flights.now(),
            cancel,
            elsewhere,
            answers: Mutex::default(),
        };
        Build { engine: self.clone(), state: Arc::new(state) }
    }
}

impl Build {
    /// Lets the build's session serve the vertices of a graph also while it does not wait for them.
    pub fn hold(&self, graph: &Graph) -> Hold {
        let shapes = key::shapes(graph, graph.vertices().iter().map(key::step_digest));
        self.engine.inner.holders.hold(&self.state.session, shapes)
    }

    /// Evaluates `wanted` of `graph`, in order, as far as `need` says.
    ///
    /// # Errors
    /// The first vertex that fails; cancellation. What else runs for this call is cancelled then,
    /// unless another build wants it.
    pub async fn solve(
        &self,
        graph: Arc<Graph>,
        wanted: &[Edge],
        need: Need,
        events: Arc<dyn EventSink>,
    ) -> Result<Vec<Output>, SolveError> {
        for _ in 0..MAX_PASSES {
            let (inner, state) = (self.engine.inner.clone(), self.state.clone());
            let pass = Pass::new(inner, state, graph.clone(), wanted, events.clone());
            let _cancel_on_drop = pass.cancel.clone().drop_guard();
            let run = async {
                pass.plan(wanted).await?;
                pass.outputs_of(wanted, need).await
            };
            let ended = tokio::select! {
                biased;
                () = self.state.cancel.cancelled() => Err(Stop::Failed(SolveError::new(None, ExecError::Canceled))),
                r = run => r,
            };
            events.found(pass.findings());
            match ended {
                Ok(outputs) => return Ok(outputs),
                Err(Stop::Again) => {
                    tracing::debug!(build = %self.state.id, "evaluating again: an answer went stale")
                }
                Err(Stop::Failed(e)) => return Err(e),
            }
        }
        Err(SolveError::new(None, ExecError::Changed { path: "the build's inputs".into() }))
    }
}

/// What is known of a graph without executing anything; by vertex.
#[derive(Debug)]
pub struct Survey {
    /// What the sources are.
    pub sources: Vec<Option<SourceAnswer>>,
    /// The outputs of which every layer made by a step is here, or can be had from elsewhere.
    pub outputs: Vec<Option<Arc<BTreeMap<u32, Output>>>>,
    /// Whether they come from elsewhere.
    pub found: Vec<bool>,
    /// The records that say so, by definition.
    pub made: Vec<Made>,
}

impl Build {
    /// Looks up what is known of everything that `wanted` stands on. Tells nobody.
    ///
    /// # Errors
    /// A source that cannot be had, a store that cannot be read, cancellation.
    pub async fn survey(&self, graph: &Arc<Graph>, wanted: &[Edge]) -> Result<Survey, SolveError> {
        for _ in 0..MAX_PASSES {
            let (inner, state) = (self.engine.inner.clone(), self.state.clone());
            let pass = Pass::new(inner, state, graph.clone(), wanted, Arc::new(Deaf));
            let _cancel_on_drop = pass.cancel.clone().drop_guard();
            match pass.survey(wanted).await {
                Ok(survey) => return Ok(survey),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Again) => {}
            }
        }
        Err(SolveError::new(None, ExecError::Changed { path: "the build's inputs".into() }))
    }
}

/// Listens to nothing.
struct Deaf;

impl EventSink for Deaf {
    fn event(&self, _: VertexId, _: Event) {}
}

impl BuildState {
    pub(crate) fn pinned(&self, key: &Key) -> Option<Pin> {
        let answers = self.lock();
        answers.pins.get(key).filter(|pin| !(pin.lent && answers.refused.contains(key))).cloned()
    }

    /// Takes note that what others lend for a vertex cannot be had.
    pub(crate) fn refuse(&self, definition: Key) {
        self.lock().refused.insert(definition);
    }

    /// Whether what others lend for a vertex cannot be had.
    pub(crate) fn is_refused(&self, definition: &Key) -> bool {
        self.lock().refused.contains(definition)
    }

    /// What passes of `epoch` have come to hold to.
    pub(crate) fn pinned_in(&self, epoch: u64, key: &Key) -> Option<Pin> {
        self.pinned(key).filter(|pin| pin.epoch == epoch)
    }

    /// Holds to an answer that a pass begun in `epoch` found, unless there is one already, and gives the one held to.
    ///
    /// An answer from before a content changed may be out of date: it is not held to.
    pub(crate) fn pin(&self, epoch: u64, key: Key, record: &Arc<Record>) -> Arc<Record> {
        self.pin_found(key, Pin { record: record.clone(), epoch, lent: false, stood_on: None }).record
    }

    /// As [`Self::pin`], with what else is known of the answer.
    pub(crate) fn pin_found(&self, key: Key, new: Pin) -> Pin {
        let epoch = new.epoch;
        let mut answers = self.lock();
        if answers.epoch != epoch {
            return new;
        }
        let pin = answers.pins.entry(key).or_insert_with(|| new.clone());
        if pin.epoch != epoch {
            *pin = new;
        }
        pin.clone()
    }

    /// Holds to `record` in place of an answer that proved unusable.
    pub(crate) fn pin_again(&self, epoch: u64, key: Key, record: &Arc<Record>) {
        let mut answers = self.lock();
        if answers.epoch == epoch {
            answers.pins.insert(key, Pin { record: record.clone(), epoch, lent: false, stood_on: None });
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Takes note that `changed` has another content than on record: answers for what stands on it are out of date.
    pub(crate) fn renew(&self, changed: Key) {
        let mut answers = self.lock();
        answers.epoch += 1;
        let epoch = answers.epoch;
        answers.renewed.insert(changed, epoch);
    }

    /// The epoch from which on answers for what stands on the vertex with this definition count; 0 is from the first.
    pub(crate) fn renewed(&self, key: &Key) -> u64 {
        self.lock().renewed.get(key).copied().unwrap_or(0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn record(name: &str) -> Arc<Record> {
        Arc::new(Record { outputs: BTreeMap::new(), created_ms: 0, took_ms: 0, name: name.to_owned() })
    }

    #[test]
    fn a_build_holds_to_its_first_answer() {
        let state = BuildState {
            id: "b".into(),
            session: String::new(),
            begun: 0,
            cancel: CancellationToken::new(),
            elsewhere: None,
            answers: Mutex::default(),
        };
        let (key, below) = (Key(Digest::of(b"k")), Key(Digest::of(b"below")));
        let name = || state.pinned(&key).map(|pin| pin.record.name.clone());
        assert_eq!(state.pin(0, key, &record("first")).name, "first");
        assert_eq!(state.pin(0, key, &record("second")).name, "first");
        state.pin_again(0, key, &record("made again"));
        assert_eq!(name().as_deref(), Some("made again"));
        state.renew(below);
        assert_eq!((state.epoch(), state.renewed(&below), state.renewed(&key)), (1, 1, 0));
        assert_eq!(state.pin(0, key, &record("late")).name, "late", "good for the pass that found it");
        assert_eq!(name().as_deref(), Some("made again"), "and for no other");
        assert_eq!(state.pin(1, key, &record("new")).name, "new");
        assert_eq!(name().as_deref(), Some("new"));
    }
}
