//! Results that others have, for what no record answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::try_join_all;

use super::{Outputs, Pass, Stop, chain};
use crate::digest::Digest;
use crate::engine::plan::Candidate;
use crate::engine::{Need, Pin, Survey};
use crate::graph::{Edge, VertexId};
use crate::key::{self, Use};
use crate::op::Op;
use crate::record::{Key, Name, OutputRecord, Record, StandsOn};
use crate::traits::{ExecError, Made, Output, Question};

impl Pass {
    /// What others know a vertex to give by what it is made from; nothing is evaluated for that.
    pub(super) async fn find_by_definition(&self, id: VertexId) -> Option<Outputs> {
        if self.node(id).above_forced.get().is_some() {
            return None;
        }
        self.find(id, None).await
    }

    /// What others know a vertex to give by what its inputs contain.
    pub(super) async fn find_by_content(self: &Arc<Self>, id: VertexId) -> Result<Option<Outputs>, Stop> {
        // Keys by content are looked up together with definitions, which would skip what is executed in any case.
        if self.build.elsewhere.is_none() || self.is_forced(id) || self.node(id).above_forced.get().is_some()
        {
            return Ok(None);
        }
        let inputs = (0..self.graph.vertex(id).inputs.len()).map(|i| self.input(id, i));
        let inputs: Vec<Output> = try_join_all(inputs).await?;
        Ok(self.find(id, Some(&inputs)).await)
    }

    async fn find(&self, id: VertexId, inputs: Option<&[Output]>) -> Option<Outputs> {
        let elsewhere = self.build.elsewhere.as_ref()?;
        let sources =
            self.sources.get_or_init(|| self.nodes.iter().map(|node| node.answer.get().cloned()).collect());
        let (graph, outputs) = (&self.graph, &self.used[id.index()]);
        let question = Question { graph, sources, vertex: id, outputs, inputs };
        let found = elsewhere.find(&question, &self.context(id)).await?;
        let found = self.node(id).found.get_or_init(|| Arc::new(found)).clone();
        self.tell_found(id);
        Some(found)
    }

    /// Brings in the layers of something found; where they cannot be had, the next pass does without it.
    pub(super) async fn fetch_found(&self, id: VertexId, found: &Outputs) -> Result<Outputs, Stop> {
        let Some(elsewhere) = &self.build.elsewhere else { return Ok(found.clone()) };
        let mut fetched = BTreeMap::new();
        for (index, output) in found.iter() {
            match elsewhere.fetch(output, &self.context(id)).await {
                Ok(output) => drop(fetched.insert(*index, output)),
                Err(ExecError::Canceled) => return Err(Stop::from_exec(id, ExecError::Canceled)),
                Err(error) => {
                    tracing::warn!(build = self.build.id, "a cached result cannot be had: {error}");
                    return Err(Stop::Again);
                }
            }
        }
        Ok(Arc::new(fetched))
    }
}

impl Pass {
    /// Holds to an answer that the build has.
    pub(in crate::engine) fn go_by(&self, id: VertexId, pin: Pin) {
        if pin.lent {
            self.mark_lent(id);
        }
        if let Some(stood_on) = pin.stood_on {
            let _ = self.node(id).stood_on.set(stood_on);
        }
        let _ = self.node(id).record.set(pin.record);
    }

    pub(super) fn mark_lent(&self, id: VertexId) {
        let _ = self.node(id).lent.set(());
        self.any_lent.store(true, Ordering::Relaxed);
    }

    /// Asks others for records by definition, for vertices that have none here.
    pub(in crate::engine) async fn borrow(&self, missing: &[(VertexId, Key)]) -> Vec<Candidate> {
        let Some(elsewhere) = &self.build.elsewhere else { return Vec::new() };
        let wanted: Vec<(VertexId, Key)> =
            missing.iter().filter(|(_, key)| !self.build.is_refused(key)).copied().collect();
        let Some((first, _)) = wanted.first() else { return Vec::new() };
        let keys: Vec<Key> = wanted.iter().map(|(_, key)| *key).collect();
        let lent = elsewhere.lend(&keys, &self.context(*first)).await;
        wanted.into_iter().zip(lent).filter_map(|(at, kept)| Some((at, kept?, true))).collect()
    }

    /// Whether a record by definition was made on what is below the vertex now. Of a record of this machine that may turn out later: of
    /// what is not known yet, which need not be known.
    pub(in crate::engine) async fn fits(
        self: &Arc<Self>,
        id: VertexId,
        stood_on: &StandsOn,
        lent: bool,
    ) -> Result<bool, Stop> {
        match self.stands_on(id).await? {
            Some(stands_on) => Ok(stands_on == *stood_on),
            None if lent => Ok(false),
            None => Ok(self.other_below(id, stood_on).await?.is_none()),
        }
    }

    /// A vertex below that is known to give something else than what a record by definition was made on.
    pub(super) async fn other_below(
        self: &Arc<Self>,
        id: VertexId,
        stood_on: &StandsOn,
    ) -> Result<Option<VertexId>, Stop> {
        let vertex = self.graph.vertex(id);
        if vertex.inputs.len() != stood_on.len() {
            return Ok(vertex.inputs.first().map(|edge| edge.vertex));
        }
        for (i, (edge, stood_on)) in vertex.inputs.iter().zip(stood_on).enumerate() {
            if let Some(now) = self.stands_on_input(id, i).await?
                && now != *stood_on
            {
                return Ok(Some(edge.vertex));
            }
        }
        Ok(None)
    }

    /// What input `i` of a vertex is known to give; `None` while it is not known.
    async fn stands_on_input(
        self: &Arc<Self>,
        id: VertexId,
        i: usize,
    ) -> Result<Option<Option<Digest>>, Stop> {
        let (edge, used) = (self.graph.vertex(id).inputs[i], &self.node(id).uses[i]);
        if matches!(self.graph.vertex(edge.vertex).op, Op::Source(_)) {
            return Ok(Some(None));
        }
        let output = self.node(edge.vertex).record.get().and_then(|record| record.outputs.get(&edge.output));
        let Some(OutputRecord { content, .. }) = output else { return Ok(None) };
        Ok(Some(Some(match used {
            Use::Layers => key::layers_digest(content, &self.output(edge, Need::Known).await?.chain),
            Use::Rootfs | Use::Selected(_) => *content,
        })))
    }

    /// What the steps are known to give that a vertex stands on; `None` while that is not known of all.
    pub(in crate::engine) async fn stands_on(
        self: &Arc<Self>,
        id: VertexId,
    ) -> Result<Option<StandsOn>, Stop> {
        let mut contents = StandsOn::new();
        for i in 0..self.graph.vertex(id).inputs.len() {
            match self.stands_on_input(id, i).await? {
                Some(content) => contents.push(content),
                None => return Ok(None),
            }
        }
        Ok(Some(contents))
    }

    /// The name that what is made of a vertex gets on this machine, beside its content key: none where it stands on what others say,
    /// which other builds need not believe.
    pub(super) async fn own_name(self: &Arc<Self>, id: VertexId) -> Result<Option<Name>, Stop> {
        let Some(&key) = self.node(id).definition.get() else { return Ok(None) };
        if self.any_lent.load(Ordering::Relaxed) {
            let below = self.graph.reachable(self.graph.vertex(id).inputs.iter().copied());
            if self.graph.ids().any(|id| below[id.index()] && self.node(id).lent.get().is_some()) {
                return Ok(None);
            }
        }
        Ok(self.stands_on(id).await?.map(|stands_on| Name { key, stands_on }))
    }

    /// Asks others for the record of a content key.
    pub(super) async fn borrow_by_content(&self, id: VertexId, key: Key) -> Option<Arc<Record>> {
        let elsewhere = self.build.elsewhere.as_ref().filter(|_| !self.is_forced(id))?;
        let definition = self.node(id).definition.get();
        if definition.is_some_and(|definition| self.build.is_refused(definition)) {
            return None;
        }
        let lent = elsewhere.lend(&[key], &self.context(id)).await.into_iter().next().flatten();
        let record = Arc::new(lent?.record);
        self.mark_lent(id);
        match definition {
            Some(&definition) => {
                let pin = Pin { record, epoch: self.epoch, lent: true, stood_on: None };
                Some(self.build.pin_found(definition, pin).record)
            }
            None => Some(record),
        }
    }

    /// Brings in what a lent record gives, as far as `need` says; whether it is at hand.
    pub(super) async fn bring(
        self: &Arc<Self>,
        id: VertexId,
        record: &Record,
        need: Need,
    ) -> Result<bool, Stop> {
        let Some(elsewhere) = &self.build.elsewhere else { return Ok(self.has_layers(record).await) };
        let brought = match need {
            Need::Known => true,
            Need::Available => elsewhere.offers(record, &self.context(id)).await,
            Need::Present => {
                let outputs = self.outputs(id, record, need).await?;
                elsewhere.bring(record, &outputs, &self.context(id)).await
            }
        };
        if let (false, Some(&definition)) = (brought, self.node(id).definition.get()) {
            self.build.refuse(definition);
        }
        Ok(brought)
    }

    /// What is on record, or known elsewhere, of all that `wanted` stands on.
    pub(in crate::engine) async fn survey(self: &Arc<Self>, wanted: &[Edge]) -> Result<Survey, Stop> {
        self.plan(wanted).await?;
        let reachable = self.graph.reachable(wanted.iter().copied());
        let mut outputs: Vec<Option<Outputs>> = vec![None; self.graph.vertices().len()];
        let mut found = vec![false; outputs.len()];
        let mut made = Vec::new();
        for id in self.graph.ids().filter(|id| reachable[id.index()]) {
            let vertex = self.graph.vertex(id);
            let below = chain::inputs(vertex);
            let known = match (self.node(id).answer.get(), self.node(id).record.get()) {
                (Some(answer), _) => {
                    let whole = match &answer.output {
                        Some(output) => Some(output.clone()).filter(|output| output.local.is_none()),
                        None => self.fetched_before(id, answer).await?,
                    };
                    whole.map(|output| Arc::new(BTreeMap::from([(0, output)])))
                }
                (None, Some(record)) => {
                    let placed = below.iter().all(|edge| outputs[edge.vertex.index()].is_some());
                    let here = placed && self.is_at_hand(id, record, Need::Available).await?;
                    if let (true, Some(&key)) =
                        (here && self.is_for_others(id), self.node(id).definition.get())
                        && let Some(stands_on) = self.stands_on(id).await?
                    {
                        made.push(Made {
                            content: None,
                            definition: Some(Name { key, stands_on }),
                            record: record.clone(),
                            in_result: self.in_result[id.index()],
                            forced: false,
                            lent: self.node(id).lent.get().is_some(),
                        });
                    }
                    match here {
                        true => Some(self.outputs(id, record, Need::Known).await?),
                        false => None,
                    }
                }
                (None, None) => self.find_by_definition(id).await,
            };
            found[id.index()] = self.node(id).found.get().is_some();
            outputs[id.index()] = known;
        }
        let sources = self.nodes.iter().map(|node| node.answer.get().cloned()).collect();
        Ok(Survey { sources, outputs, found, made })
    }

    /// Whether what a vertex gives may be told others: its client may have said that it is not to leave this daemon.
    pub(super) fn is_for_others(&self, id: VertexId) -> bool {
        self.graph.vertex(id).meta.export_cache != Some(false)
    }
}
