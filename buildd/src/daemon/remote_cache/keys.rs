//! BuildKit's keys of a graph's vertices.

use std::collections::HashMap;
use std::sync::Arc;

use cache::fileop::FileInput;
use cache::fileop::content_hash::{ContentSelector, content_hash, hash_of_nothing};
use solver::op::DiffOp;
use solver::{Digest, Edge, Graph, LocalRef, Op, Output, SourceAnswer, VertexContext, VertexId};

use crate::daemon::blocking::blocking;
use crate::daemon::parts::Parts;
use crate::daemon::sources::image::host_platform;
use crate::llb::{OpKey, op_key, output_key, source_key};

/// What an output contains: it may be made anew within a build.
type Contents = (Option<Digest>, Option<LocalRef>);

/// The keys of one graph, found out as they are needed.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) graph: Arc<Graph>,
    ops: Vec<Option<OpKey>>,
    sources: HashMap<VertexId, Vec<Digest>>,
    /// By vertex, input, and what the input contains.
    contents: HashMap<(VertexId, usize, Contents), Digest>,
}

impl Keys {
    pub(super) fn new(graph: &Arc<Graph>) -> Self {
        let host = host_platform();
        let ops = graph.vertices().iter().map(|vertex| op_key(vertex, &host)).collect();
        Self { graph: graph.clone(), ops, sources: HashMap::new(), contents: HashMap::new() }
    }

    /// The key of a vertex that is no source.
    pub(super) fn of_op(&self, id: VertexId) -> Option<&OpKey> {
        self.ops[id.index()].as_ref()
    }

    /// The keys of a source; none where only what it contains counts, or where nothing is known of it.
    pub(super) async fn of_source(&mut self, parts: &Parts, id: VertexId, cx: &VertexContext) -> Vec<Digest> {
        if let Some(known) = self.sources.get(&id) {
            return known.clone();
        }
        let vertex = self.graph.vertex(id);
        let Op::Source(op) = &vertex.op else { return Vec::new() };
        let keys = match parts.sources.buildkit_keys(op, vertex.platform.as_ref(), cx).await {
            Ok(keys) => keys.iter().map(|key| output_key(&source_key(key), 0)).collect(),
            Err(error) => {
                tracing::debug!(build = cx.build, "no cache key for a source: {error}");
                Vec::new()
            }
        };
        self.sources.insert(id, keys);
        self.sources[&id].clone()
    }

    /// The digest of what a vertex uses of an input, by what it contains; `None` where that cannot be told.
    pub(super) async fn of_content(
        &mut self,
        parts: &Parts,
        id: VertexId,
        input: usize,
        output: &Output,
    ) -> Option<Digest> {
        let contents = (output.content, output.local);
        if let Some(known) = self.contents.get(&(id, input, contents)) {
            return Some(*known);
        }
        let selectors = self.of_op(id)?.inputs.get(input)?.content.clone()?;
        let digest = match self.is_nothing(self.graph.vertex(id).inputs[input]) {
            true => hash_of_nothing(&selectors)?,
            false => hash(parts, output, selectors).await?,
        };
        self.contents.insert((id, input, contents), digest);
        Some(digest)
    }

    /// Whether BuildKit has no file system for an output at all, not even an empty one: no directory counts then.
    fn is_nothing(&self, mut edge: Edge) -> bool {
        loop {
            let vertex = self.graph.vertex(edge.vertex);
            let at = |input: usize| vertex.inputs.get(input).copied();
            let same = match &vertex.op {
                Op::Diff(DiffOp { lower: Some(lower), upper: Some(upper) }) => {
                    return at(*lower) == at(*upper);
                }
                Op::Diff(DiffOp { lower, upper }) => match lower.or(*upper) {
                    Some(input) => at(input),
                    None => return true,
                },
                Op::Passthrough(pass) => pass.outputs.get(edge.output as usize).and_then(|i| at(*i)),
                _ => return false,
            };
            let Some(below) = same else { return false };
            edge = below;
        }
    }
}

/// A directory of the client, where that is what a source is.
pub(super) fn local(answer: Option<&SourceAnswer>) -> Option<&Output> {
    answer?.output.as_ref().filter(|output| output.local.is_some())
}

async fn hash(parts: &Parts, output: &Output, selectors: Vec<ContentSelector>) -> Option<Digest> {
    let input = match output.local.and_then(|local| parts.locals.get(local)) {
        Some(context) => FileInput::Context(context),
        None => FileInput::Chain(parts.chains.base(output).ok()?),
    };
    match blocking(move || content_hash(&input, &selectors)).await {
        Ok(digest) => Some(digest),
        Err(error) => {
            tracing::debug!("no cache key by content: {error}");
            None
        }
    }
}
