//! Results that others have, for what no record answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::{Outputs, Pass, Stop, chain};
use crate::engine::{Need, Survey};
use crate::graph::{Edge, VertexId};
use crate::traits::{ExecError, Output, Question};

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
    /// What is on record, or known elsewhere, of all that `wanted` stands on.
    pub(in crate::engine) async fn survey(self: &Arc<Self>, wanted: &[Edge]) -> Result<Survey, Stop> {
        self.plan(wanted).await?;
        let reachable = self.graph.reachable(wanted.iter().copied());
        let mut outputs: Vec<Option<Outputs>> = vec![None; self.graph.vertices().len()];
        let mut found = vec![false; outputs.len()];
        for id in self.graph.ids().filter(|id| reachable[id.index()]) {
            let vertex = self.graph.vertex(id);
            let below = chain::inputs(vertex);
            let known = match (self.node(id).answer.get(), self.node(id).record.get()) {
                (Some(answer), _) => {
                    let whole = answer.output.clone().filter(|output| output.local.is_none());
                    whole.map(|output| Arc::new(BTreeMap::from([(0, output)])))
                }
                (None, Some(record)) => {
                    let placed = below.iter().all(|edge| outputs[edge.vertex.index()].is_some());
                    match placed && self.has_layers(record).await {
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
        Ok(Survey { sources, outputs, found })
    }
}
