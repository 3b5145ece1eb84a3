//! The first part of a pass: sources pinned, definition keys computed and looked up.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::pass::{Node, Pass, Stop};
use super::{Pin, SolveError};
use crate::digest::Digest;
use crate::graph::{Edge, VertexId};
use crate::key::{self, Use};
use crate::op::{Op, SourceOp};
use crate::record::{Kept, Key};
use crate::traits::{ExecError, SourceIdentity};

/// A record that a vertex has by definition, and whether others lend it.
pub(super) type Candidate = ((VertexId, Key), Kept, bool);

impl Pass {
    /// Fills in the definition key of every vertex that `wanted` needs, and the record behind it.
    pub(super) async fn plan(self: &Arc<Self>, wanted: &[Edge]) -> Result<(), Stop> {
        let reachable = self.graph.reachable(wanted.iter().copied());
        let needed: Vec<VertexId> = self.graph.ids().filter(|id| reachable[id.index()]).collect();
        let sources = needed.iter().filter_map(|&id| match &self.graph.vertex(id).op {
            Op::Source(s) => Some(self.identify(id, s)),
            _ => None,
        });
        try_join_all(sources).await?;
        self.define(&needed).await?;
        self.look_up(&needed).await
    }

    /// Computes definition keys. What a vertex misses in a session's directory does not hide what others miss.
    async fn define(&self, needed: &[VertexId]) -> Result<(), Stop> {
        let mut failed = Vec::new();
        for &id in needed {
            match self.definition_key(id).await {
                Ok(Some(key)) => {
                    let _ = self.node(id).definition.set(key);
                }
                Ok(None) => {}
                Err((input, error @ ExecError::Failed(_))) => {
                    self.begin(id).end(Some(&error));
                    failed.push((id, input, error));
                }
                Err((_, error)) => return Err(Stop::from_exec(id, error)),
            }
        }
        let mut failed = failed.into_iter();
        match failed.next() {
            None => Ok(()),
            Some((vertex, input, error)) => {
                let others = failed.map(|(vertex, _, error)| (vertex, error)).collect();
                let first = SolveError::new(Some(vertex), error);
                Err(Stop::Failed(SolveError { input: Some(input), others, ..first }))
            }
        }
    }

    async fn identify(&self, id: VertexId, op: &SourceOp) -> Result<(), Stop> {
        let vertex = self.graph.vertex(id);
        let shown = self.begin(id);
        let answer = self.engine.source.identify(op, vertex.platform.as_ref(), &self.context(id)).await;
        shown.end(answer.as_ref().err());
        let answer = answer.map_err(|e| Stop::from_exec(id, e))?;
        let _ = self.node(id).answer.set(answer);
        Ok(())
    }

    /// `None` on top of a vertex that has none; an error names the input that it is about.
    async fn definition_key(&self, id: VertexId) -> Result<Option<Key>, (usize, ExecError)> {
        let vertex = self.graph.vertex(id);
        let node = self.node(id);
        let mut inputs = Vec::with_capacity(vertex.inputs.len());
        for (i, (edge, used)) in vertex.inputs.iter().zip(&node.uses).enumerate() {
            inputs.push(self.defined_as(*edge, used).await.map_err(|error| (i, error))?);
        }
        let Some(inputs) = inputs.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        let op = match node.answer.get().map(|a| a.identity) {
            Some(SourceIdentity::Digest(d)) => d,
            _ => node.op,
        };
        Ok(Some(key::definition_key(&op, &inputs)))
    }

    /// What an input counts as: its definition, or, for a session's directory, the content that is selected.
    async fn defined_as(&self, edge: Edge, used: &Use) -> Result<Option<Digest>, ExecError> {
        let input: &Node = self.node(edge.vertex);
        if let Some(answer) = input.answer.get()
            && answer.identity == SourceIdentity::Content
            && let Some(output) = &answer.output
        {
            return match (used, output.content) {
                (Use::Rootfs | Use::Layers, Some(content)) => Ok(Some(content)),
                (Use::Selected(list), _) => self.engine.worker.selection_digest(output, list).await.map(Some),
                (Use::Rootfs | Use::Layers, None) => Err(ExecError::failed(NoContent)),
            };
        }
        Ok(input.definition.get().map(|definition| key::edge_digest(definition, edge.output, used)))
    }

    async fn look_up(self: &Arc<Self>, needed: &[VertexId]) -> Result<(), Stop> {
        let mut asked = Vec::new();
        let mut forced = vec![false; self.graph.vertices().len()];
        // By vertex: the epoch from which on what is below it has the content that it has now.
        let mut settled = vec![0; self.graph.vertices().len()];
        for &id in needed {
            let node = self.node(id);
            let vertex = self.graph.vertex(id);
            let below = vertex.inputs.iter().map(|e| settled[e.vertex.index()].max(self.renewed(e.vertex)));
            let since = below.max().unwrap_or(0);
            settled[id.index()] = since;
            // What follows a forced execution is not known by its definition: that would skip the execution.
            forced[id.index()] = vertex.meta.ignore_cache
                || since > 0
                || vertex.inputs.iter().any(|e| forced[e.vertex.index()]);
            if forced[id.index()] {
                let _ = node.above_forced.set(());
            }
            let Some(&key) = node.definition.get() else { continue };
            if matches!(vertex.op, Op::Source(_)) {
                continue;
            }
            if let Some(pin) = self.build.pinned(&key).filter(|pin| pin.epoch >= since) {
                self.go_by(id, pin);
            } else if !forced[id.index()] {
                asked.push((id, key));
            }
        }
        let keys: Vec<_> = asked.iter().map(|(_, k)| *k).collect();
        let found = self.engine.records.lookup(&keys).await.map_err(Stop::internal)?;
        let mut known: Vec<Candidate> =
            asked.iter().zip(found).filter_map(|(at, kept)| Some((*at, kept?, false))).collect();
        let missing: Vec<_> = {
            let here: HashSet<VertexId> = known.iter().map(|((id, _), ..)| *id).collect();
            asked.into_iter().filter(|(id, _)| !here.contains(id)).collect()
        };
        known.extend(self.borrow(&missing).await);
        // What a record was made on is below it.
        known.sort_unstable_by_key(|((id, _), ..)| *id);
        for ((id, key), Kept { record, stands_on }, lent) in known {
            let Some(stood_on) = stands_on else { continue };
            if self.fits(id, &stood_on, lent).await? {
                let (record, epoch, stood_on) = (Arc::new(record), self.epoch, Some(stood_on));
                self.go_by(id, self.build.pin_found(key, Pin { record, epoch, lent, stood_on }));
            }
        }
        Ok(())
    }

    fn renewed(&self, id: VertexId) -> u64 {
        self.node(id).definition.get().map_or(0, |key| self.build.renewed(key))
    }
}

/// A source broke its contract.
#[derive(Debug, thiserror::Error)]
#[error("internal error: a source was used before its content was known")]
pub(super) struct NoContent;
