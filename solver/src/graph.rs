//! The build graph: vertices in topological order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::digest::Digest;
use crate::op::{Op, Platform};

/// The index of a vertex within its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(pub u32);

impl VertexId {
    /// The index as a slice index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One output of one vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The vertex that makes it.
    pub vertex: VertexId,
    /// Which of its outputs.
    pub output: u32,
}

/// An operation, its inputs and what describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// What is done.
    pub op: Op,
    /// In the order that the op's indexes refer to.
    pub inputs: Vec<Edge>,
    /// The platform it is done for; part of the key.
    pub platform: Option<Platform>,
    /// Worker filters of LLB; never in the key, because they choose where, not what.
    pub constraints: Vec<String>,
    /// What never enters a key.
    pub meta: VertexMeta,
}

/// What describes a vertex without changing its result; never part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VertexMeta {
    /// LLB's description map: `llb.customname`, `com.docker.dockerfile.v1.command`, …
    pub description: BTreeMap<String, String>,
    /// Runs again even where a record exists.
    pub ignore_cache: bool,
    /// LLB's export_cache switch.
    pub export_cache: Option<bool>,
    /// Capabilities that LLB says the vertex needs.
    pub caps: BTreeMap<String, bool>,
    /// Groups vertices in the progress display.
    pub progress_group: Option<ProgressGroup>,
    /// Limits for this vertex's sandbox.
    pub resources: Option<LinuxResources>,
    /// Where in which source file it comes from.
    pub locations: Vec<SourceLocation>,
    /// The LLB digest under which a client knows the vertex, when it came as LLB.
    pub llb_digest: Option<Digest>,
    /// The op as its client wrote it, where that is another way to write what the op here says: it counts for the keys of others.
    pub wire: Option<Arc<[u8]>>,
    /// The variables of the source file that it was made with.
    pub variables: Arc<[Arc<Variable>]>,
}

impl VertexMeta {
    /// The name shown in progress, if one was given.
    pub fn custom_name(&self) -> Option<&str> {
        self.description.get("llb.customname").map(String::as_str)
    }
}

/// A variable that a vertex was made with: says why vertices of successive builds differ. Its value may be a secret, so only
/// digests are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// An ARG, and no ENV.
    pub arg: bool,
    /// Of its value.
    pub value: Digest,
    /// Of what the file says it is, not expanded.
    pub text: Digest,
    /// The variables that this was expanded with.
    pub from: Vec<String>,
}

/// A named group of vertices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProgressGroup {
    /// Identifies the group.
    pub id: String,
    /// Shown to the user.
    pub name: String,
    /// Other groups win.
    pub weak: bool,
}

/// Limits; zero or empty means none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinuxResources {
    /// Bytes.
    pub memory: i64,
    /// Bytes of memory and swap together.
    pub memory_swap: i64,
    /// Relative weight.
    pub cpu_shares: u64,
    /// Microseconds.
    pub cpu_period: u64,
    /// Microseconds per period.
    pub cpu_quota: i64,
    /// Such as `0-3`.
    pub cpuset_cpus: String,
    /// Such as `0,1`.
    pub cpuset_mems: String,
}

/// Ranges of lines in one of the graph's source files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLocation {
    /// Index into [`Graph::sources`].
    pub source: u32,
    /// One-based, inclusive.
    pub ranges: Vec<SourceRange>,
}

/// A range of a source file; lines count from 1, characters from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceRange {
    /// First line.
    pub start_line: u32,
    /// First character.
    pub start_character: u32,
    /// Last line.
    pub end_line: u32,
    /// Last character.
    pub end_character: u32,
}

/// A source file that vertices point into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceInfo {
    /// Name as the user gave it.
    pub filename: String,
    /// Such as `Dockerfile`.
    pub language: String,
    /// Whole content.
    pub data: Vec<u8>,
    /// How it was loaded: operations as they came, one by one; none where nobody said.
    pub definition: Vec<Vec<u8>>,
}

/// A build graph. Invariant: an input's vertex index is lower than that of the vertex that uses it, so there are no cycles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Graph {
    vertices: Vec<Vertex>,
    /// Files that locations refer to.
    pub sources: Vec<SourceInfo>,
    /// What is built; `None` is scratch.
    pub head: Option<Edge>,
}

impl Graph {
    /// All vertices, inputs before users.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// The op of a vertex, to be changed; what it says of its inputs has to stay true. It is no longer what the client wrote.
    pub fn op_mut(&mut self, id: VertexId) -> &mut Op {
        let vertex = &mut self.vertices[id.index()];
        vertex.meta.wire = None;
        &mut vertex.op
    }

    /// The vertex `id`, which must come from this graph.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.index()]
    }

    /// The ids of all vertices, inputs before users.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = VertexId> + use<> {
        (0..self.vertices.len() as u32).map(VertexId)
    }

    /// Names each source file once, though graphs that this one was put together of had it, too.
    pub fn unite_sources(&mut self) {
        let mut kept: Vec<SourceInfo> = Vec::with_capacity(self.sources.len());
        let mut places = Vec::with_capacity(self.sources.len());
        for source in self.sources.drain(..) {
            let known = kept.iter().position(|other| *other == source);
            places.push(known.unwrap_or(kept.len()) as u32);
            if known.is_none() {
                kept.push(source);
            }
        }
        self.sources = kept;
        let locations = self.vertices.iter_mut().flat_map(|vertex| &mut vertex.meta.locations);
        for location in locations {
            location.source = places.get(location.source as usize).copied().unwrap_or(location.source);
        }
    }

    /// Which outputs of each vertex are wanted, or inputs of others; indexed by vertex.
    pub fn used_outputs<'a>(&'a self, wanted: impl IntoIterator<Item = &'a Edge>) -> Vec<BTreeSet<u32>> {
        let mut used = vec![BTreeSet::new(); self.vertices.len()];
        for edge in self.vertices.iter().flat_map(|vertex| &vertex.inputs).chain(wanted) {
            used[edge.vertex.index()].insert(edge.output);
        }
        used
    }

    /// Which vertices stand on `id`, itself included; indexed by vertex.
    pub fn standing_on(&self, id: VertexId) -> Vec<bool> {
        let mut above = vec![false; self.vertices.len()];
        for (i, vertex) in self.vertices.iter().enumerate().skip(id.index()) {
            above[i] = i == id.index() || vertex.inputs.iter().any(|e| above[e.vertex.index()]);
        }
        above
    }

    /// Which vertices `heads` need, themselves included; indexed by vertex.
    pub fn reachable(&self, heads: impl IntoIterator<Item = Edge>) -> Vec<bool> {
        let mut seen = vec![false; self.vertices.len()];
        let mut todo: Vec<VertexId> = heads.into_iter().map(|e| e.vertex).collect();
        while let Some(id) = todo.pop() {
            if !std::mem::replace(&mut seen[id.index()], true) {
                todo.extend(self.vertex(id).inputs.iter().map(|e| e.vertex));
            }
        }
        seen
    }
}

/// A vertex whose input does not exist (yet) in the graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input {input} of vertex {vertex} points at vertex {target}, which does not come before it")]
pub struct DanglingInput {
    /// The vertex that was to be added.
    pub vertex: usize,
    /// Which of its inputs.
    pub input: usize,
    /// Where it points.
    pub target: usize,
}

/// Builds a graph from its leaves up.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: Graph,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty graph with room for so many vertices.
    pub fn with_capacity(vertices: usize) -> Self {
        Self { graph: Graph { vertices: Vec::with_capacity(vertices), ..Graph::default() } }
    }

    /// Adds a vertex.
    ///
    /// # Errors
    /// An input that points at a vertex not added before.
    pub fn add(&mut self, vertex: Vertex) -> Result<VertexId, DanglingInput> {
        let id = self.graph.vertices.len();
        for (i, e) in vertex.inputs.iter().enumerate() {
            if e.vertex.index() >= id {
                return Err(DanglingInput { vertex: id, input: i, target: e.vertex.index() });
            }
        }
        self.graph.vertices.push(vertex);
        Ok(VertexId(id as u32))
    }

    /// Adds a source file and returns its index.
    pub fn add_source(&mut self, info: SourceInfo) -> u32 {
        self.graph.sources.push(info);
        (self.graph.sources.len() - 1) as u32
    }

    /// A vertex added before, to describe it further.
    pub fn meta_mut(&mut self, id: VertexId) -> &mut VertexMeta {
        &mut self.graph.vertices[id.index()].meta
    }

    /// What has been added so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Ends with the vertex output that is wanted.
    pub fn finish(mut self, head: Option<Edge>) -> Graph {
        self.graph.head = head;
        self.graph
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_a_vertex_and_which_outputs_are_used() {
        let merge = |inputs: &[(u32, u32)]| Vertex {
            op: Op::Merge(crate::op::MergeOp { inputs: Vec::new() }),
            inputs: inputs.iter().map(|&(v, output)| Edge { vertex: VertexId(v), output }).collect(),
            platform: None,
            constraints: Vec::new(),
            meta: VertexMeta::default(),
        };
        let mut graph = GraphBuilder::new();
        for inputs in [&[][..], &[], &[(0, 1)], &[(1, 0)], &[(2, 0), (3, 0)]] {
            graph.add(merge(inputs)).unwrap();
        }
        let graph = graph.finish(None);
        assert_eq!(graph.standing_on(VertexId(0)), [true, false, true, false, true]);
        assert_eq!(graph.standing_on(VertexId(3)), [false, false, false, true, true]);
        let used = graph.used_outputs(&[Edge { vertex: VertexId(4), output: 7 }]);
        assert_eq!(used, [[1].into(), [0].into(), [0].into(), [0].into(), BTreeSet::from([7])]);
    }

    #[test]
    fn an_op_that_was_changed_is_not_what_the_client_wrote() {
        let mut graph = GraphBuilder::new();
        let id = graph
            .add(Vertex {
                op: Op::Merge(crate::op::MergeOp { inputs: Vec::new() }),
                inputs: Vec::new(),
                platform: None,
                constraints: Vec::new(),
                meta: VertexMeta { wire: Some([1].into()), ..VertexMeta::default() },
            })
            .unwrap();
        let mut graph = graph.finish(None);
        *graph.op_mut(id) = Op::Merge(crate::op::MergeOp { inputs: vec![None] });
        assert_eq!(graph.vertex(id).meta.wire, None);
    }

    #[test]
    fn a_source_file_is_named_once() {
        let file = |name: &str| SourceInfo {
            filename: name.to_owned(),
            language: String::new(),
            data: Vec::new(),
            definition: Vec::new(),
        };
        let vertex = |source: u32| Vertex {
            op: Op::Merge(crate::op::MergeOp { inputs: Vec::new() }),
            inputs: Vec::new(),
            platform: None,
            constraints: Vec::new(),
            meta: VertexMeta {
                locations: vec![SourceLocation { source, ranges: Vec::new() }],
                ..VertexMeta::default()
            },
        };
        let mut graph = Graph {
            vertices: [0, 1, 2, 3, 9].map(vertex).into(),
            sources: ["a", "b", "a", "c"].map(file).into(),
            head: None,
        };
        graph.unite_sources();
        assert_eq!(graph.sources, ["a", "b", "c"].map(file));
        let places: Vec<u32> = graph.vertices.iter().map(|v| v.meta.locations[0].source).collect();
        assert_eq!(places, [0, 1, 0, 2, 9], "what refers to no file still does not");
    }
}
