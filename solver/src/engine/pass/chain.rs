//! From a record to chains: the step's own layer over the inputs that this build chose.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Outputs, Pass, Stop};
use crate::engine::Need;
use crate::graph::{Edge, Graph, Vertex, VertexId};
use crate::op::{ActionInput, FileOp, Op};
use crate::record::{LayerId, Record};
use crate::traits::Output;

impl Pass {
    /// The outputs that `record` describes, on the chains that this build's inputs have as far as `need` says.
    pub(super) async fn outputs(
        self: &Arc<Self>,
        id: VertexId,
        record: &Record,
        need: Need,
    ) -> Result<Outputs, Stop> {
        let vertex = self.graph.vertex(id);
        let mut outputs = BTreeMap::new();
        for (&index, found) in &record.outputs {
            let mut chain: Vec<LayerId> = match (&vertex.op, found.layer) {
                (Op::Diff(d), None) => match self.difference(vertex, d.lower, d.upper, need).await? {
                    Some(layers) => layers,
                    None => return self.anew(id, record).await,
                },
                (Op::Diff(_), Some(_)) => Vec::new(),
                _ => self.below(vertex, index, need).await?,
            };
            chain.extend(found.layer);
            outputs.insert(index, Output { chain: chain.into(), content: Some(found.content), local: None });
        }
        Ok(Arc::new(outputs))
    }

    async fn below(self: &Arc<Self>, vertex: &Vertex, output: u32, need: Need) -> Result<Vec<LayerId>, Stop> {
        let at = |i: Option<usize>| edge(vertex, i);
        let edges: Vec<Edge> = match &vertex.op {
            Op::Exec(e) => {
                let mount = e.mounts.iter().find(|m| m.output == Some(output as usize));
                mount.and_then(|m| at(m.input)).into_iter().collect()
            }
            Op::File(f) => {
                let action = f.actions.iter().find(|a| a.output == Some(output as usize));
                action.and_then(|a| at(file_base(f, a.input))).into_iter().collect()
            }
            Op::Merge(m) => m.inputs.iter().filter_map(|i| at(*i)).collect(),
            Op::Passthrough(p) => {
                p.outputs.get(output as usize).and_then(|i| at(Some(*i))).into_iter().collect()
            }
            Op::Source(_) | Op::Build(_) | Op::Diff(_) => Vec::new(),
        };
        let mut chain = Vec::new();
        for e in edges {
            chain.extend(self.chain(e, need).await?.iter().copied());
        }
        Ok(chain)
    }

    /// An input's layers; a directory that no layer holds yet is copied into one first.
    pub(super) async fn chain(self: &Arc<Self>, edge: Edge, need: Need) -> Result<Arc<[LayerId]>, Stop> {
        let output = self.output(edge, need).await?;
        if output.local.is_none() {
            return Ok(output.chain);
        }
        Ok(self.output(edge, Need::Present).await?.chain)
    }

    /// Executes a difference again that is on record without a layer: it was taken of the same contents, but of chains
    /// of which one was the beginning of the other, and here they are not.
    async fn anew(self: &Arc<Self>, id: VertexId, record: &Record) -> Result<Outputs, Stop> {
        let key = self.content_key(id).await?;
        self.execute(id, key, Some(Arc::new(record.clone()))).await?;
        Err(Stop::Again)
    }

    /// The layers of `upper` above `lower`; `None` where `lower` is not its beginning.
    async fn difference(
        self: &Arc<Self>,
        vertex: &Vertex,
        lower: Option<usize>,
        upper: Option<usize>,
        need: Need,
    ) -> Result<Option<Vec<LayerId>>, Stop> {
        let mut chains = [Arc::<[LayerId]>::from([]), Arc::from([])];
        for (slot, input) in chains.iter_mut().zip([lower, upper]) {
            if let Some(e) = edge(vertex, input) {
                *slot = self.chain(e, need).await?;
            }
        }
        Ok(chains[1].strip_prefix(&*chains[0]).map(<[LayerId]>::to_vec))
    }
}

/// The inputs whose layers are part of some output's chain.
pub(super) fn inputs(vertex: &Vertex) -> Vec<Edge> {
    let mut edges: Vec<Edge> = match &vertex.op {
        Op::Exec(e) => {
            e.mounts.iter().filter(|m| m.output.is_some()).filter_map(|m| edge(vertex, m.input)).collect()
        }
        Op::File(f) => f
            .actions
            .iter()
            .filter(|a| a.output.is_some())
            .filter_map(|a| edge(vertex, file_base(f, a.input)))
            .collect(),
        Op::Source(_) | Op::Build(_) => Vec::new(),
        Op::Merge(_) | Op::Diff(_) | Op::Passthrough(_) => vertex.inputs.clone(),
    };
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// Which vertices have layers in the chains behind `wanted`; indexed by vertex.
pub(super) fn in_chains(graph: &Graph, wanted: &[Edge]) -> Vec<bool> {
    let mut found = vec![false; graph.vertices().len()];
    let mut todo: Vec<VertexId> = wanted.iter().map(|e| e.vertex).collect();
    while let Some(id) = todo.pop() {
        if !std::mem::replace(&mut found[id.index()], true) {
            todo.extend(inputs(graph.vertex(id)).iter().map(|e| e.vertex));
        }
    }
    found
}

fn edge(vertex: &Vertex, input: Option<usize>) -> Option<Edge> {
    input.and_then(|i| vertex.inputs.get(i)).copied()
}

/// The vertex input that a chain of file actions began with.
fn file_base(op: &FileOp, mut input: ActionInput) -> Option<usize> {
    // Actions refer to earlier ones only, so this ends; the bound holds for a malformed op too.
    for _ in 0..=op.actions.len() {
        match input {
            ActionInput::Scratch => return None,
            ActionInput::Vertex(i) => return Some(i),
            ActionInput::Action(i) => input = op.actions.get(i)?.input,
        }
    }
    None
}
