//! Definitions of clients: read, checked, and their build ops replaced by what these build.
//!
//! A build op (LLB's BuildOp) stands for a definition that another vertex makes as a file. So that file is made and
//! read first, and its graph takes the op's place: what is nested is keyed, cached and shown like everything else.

use futures_util::future::BoxFuture;
use prost::Message as _;
use proto::pb::Definition;
use solver::op::BuildOp;
use solver::{Edge, Graph, GraphBuilder, Need, Op, Vertex, VertexId};
use tonic::Code;

use super::dockerfile::check_policy;
use super::failure::Failure;
use super::parts::Parts;
use super::policies::{self, Rules};
use super::run::Run;

/// The input of a build op that holds the definition, and the file's name in it.
const DEFINITION: &str = "buildkit.llb.definition";
/// The attribute with another name of the file.
const FILENAME: &str = "llbbuild.filename";
/// A definition larger than this would not fit into a message either.
const LIMIT: u64 = 16 << 20;
/// How deep definitions may make definitions.
const MAX_DEPTH: usize = 8;

/// Reads a definition; its graph holds no build ops.
///
/// # Errors
/// A malformed definition, what policies forbid or the build was not granted, and whatever fails in making nested definitions.
pub(super) async fn load(parts: &Parts, run: &Run, definition: &Definition) -> Result<Graph, Failure> {
    load_nested(parts, run, definition, 0).await
}

async fn load_nested(
    parts: &Parts,
    run: &Run,
    definition: &Definition,
    depth: usize,
) -> Result<Graph, Failure> {
    let graph = crate::llb::from_definition(definition).map_err(|e| Failure::invalid(&e))?;
    let mut graph = policies::apply(parts, run, graph, &Rules::default()).await?;
    check_policy(&mut graph, run)?;
    expand(parts, run, graph, depth).await
}

/// Replaces the build ops of a graph.
fn expand<'a>(
    parts: &'a Parts,
    run: &'a Run,
    graph: Graph,
    depth: usize,
) -> BoxFuture<'a, Result<Graph, Failure>> {
    Box::pin(async move {
        if !graph.vertices().iter().any(|v| matches!(v.op, Op::Build(_))) {
            return Ok(graph);
        }
        if depth == MAX_DEPTH {
            return Err(invalid(format!("definitions nested more than {MAX_DEPTH} deep")));
        }
        let mut made = Spliced::default();
        made.sources(&graph);
        for vertex in graph.vertices() {
            match &vertex.op {
                Op::Build(op) => {
                    let nested = nested(parts, run, &made, vertex, op, depth).await?;
                    made.put_graph(&nested)?;
                }
                _ => made.put(vertex, 0)?,
            }
        }
        let head = graph.head.map(|head| made.edge(head));
        Ok(made.builder.finish(head))
    })
}

/// The graph that a build op stands for.
async fn nested(
    parts: &Parts,
    run: &Run,
    made: &Spliced,
    vertex: &Vertex,
    op: &BuildOp,
    depth: usize,
) -> Result<Graph, Failure> {
    if op.builder.is_some() {
        return Err(invalid("only LLB builder is currently allowed"));
    }
    if let Some(graph) = &op.definition {
        let mut graph = policies::apply(parts, run, graph.as_ref().clone(), &Rules::default()).await?;
        check_policy(&mut graph, run)?;
        return expand(parts, run, graph, depth + 1).await;
    }
    let input = op.inputs.get(DEFINITION).and_then(|&i| vertex.inputs.get(i));
    let input = input.ok_or_else(|| invalid(format!("no llb definition input {DEFINITION} found")))?;
    let path = op.attrs.get(FILENAME).map_or(DEFINITION, String::as_str);
    let graph = std::sync::Arc::new(made.builder.graph().clone());
    let output = run.solve(&graph, made.edge(*input), Need::Present).await?;
    let bytes = parts.read_file(&output, path, LIMIT).await?;
    let bytes = bytes.ok_or_else(|| invalid(format!("failed to open {path}: no such file or directory")))?;
    let definition =
        Definition::decode(&bytes[..]).map_err(|e| invalid(format!("`{path}` is no definition: {e}")))?;
    load_nested(parts, run, &definition, depth + 1).await
}

/// A graph that is put together of others, and where the vertices of one of them have gone.
#[derive(Debug, Default)]
struct Spliced {
    builder: GraphBuilder,
    /// By vertex of the outer graph.
    places: Vec<Place>,
}

/// What stands for a vertex.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Another with the same outputs.
    Vertex(VertexId),
    /// One output, in place of the only one that a build op has.
    Edge(Edge),
}

impl Spliced {
    /// Takes over a graph's source files; returns by how much their indexes move.
    fn sources(&mut self, graph: &Graph) -> u32 {
        let offset = self.builder.graph().sources.len() as u32;
        for info in &graph.sources {
            self.builder.add_source(info.clone());
        }
        offset
    }

    fn edge(&self, edge: Edge) -> Edge {
        match self.places[edge.vertex.index()] {
            Place::Vertex(vertex) => Edge { vertex, output: edge.output },
            Place::Edge(edge) => edge,
        }
    }

    /// Adds a vertex of the outer graph.
    fn put(&mut self, vertex: &Vertex, offset: u32) -> Result<(), Failure> {
        let mut vertex = vertex.clone();
        vertex.inputs.iter_mut().for_each(|edge| *edge = self.edge(*edge));
        vertex.meta.locations.iter_mut().for_each(|location| location.source += offset);
        let id = self.builder.add(vertex).map_err(|e| Failure::invalid(&e))?;
        self.places.push(Place::Vertex(id));
        Ok(())
    }

    /// Adds a whole graph as one vertex of the outer one.
    fn put_graph(&mut self, graph: &Graph) -> Result<(), Failure> {
        let offset = self.sources(graph);
        let outer = std::mem::take(&mut self.places);
        for vertex in graph.vertices() {
            self.put(vertex, offset)?;
        }
        let head = graph.head.map(|head| self.edge(head));
        self.places = outer;
        self.places.push(Place::Edge(head.ok_or_else(|| invalid("a nested definition has no result"))?));
        Ok(())
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use solver::graph::{SourceInfo, SourceLocation, VertexMeta};
    use solver::op::{MergeOp, SourceOp};

    use super::*;

    fn vertex(op: Op, inputs: &[u32], source: Option<u32>) -> Vertex {
        let inputs = inputs.iter().map(|&v| Edge { vertex: VertexId(v), output: 0 }).collect();
        let locations = source.map(|source| SourceLocation { source, ranges: vec![] }).into_iter().collect();
        let meta = VertexMeta { locations, ..VertexMeta::default() };
        Vertex { op, inputs, platform: None, constraints: vec![], meta }
    }

    fn source(name: &str) -> Op {
        Op::Source(SourceOp { identifier: format!("local://{name}"), attrs: Default::default() })
    }

    fn merge(inputs: usize) -> Op {
        Op::Merge(MergeOp { inputs: (0..inputs).map(Some).collect() })
    }

    fn file(name: &str) -> SourceInfo {
        SourceInfo {
            filename: name.into(),
            language: String::new(),
            data: Vec::new(),
            definition: Vec::new(),
        }
    }

    #[test]
    fn a_graph_takes_the_place_of_a_vertex() {
        let mut nested = GraphBuilder::new();
        nested.add_source(file("inner"));
        nested.add(vertex(source("b"), &[], Some(0))).unwrap();
        nested.add(vertex(source("c"), &[], None)).unwrap();
        let nested = nested.finish(Some(Edge { vertex: VertexId(0), output: 0 }));

        let mut outer = GraphBuilder::new();
        outer.add_source(file("outer"));
        let outer = outer.finish(None);
        let mut made = Spliced::default();
        made.sources(&outer);
        made.put(&vertex(source("a"), &[], Some(0)), 0).unwrap();
        made.put_graph(&nested).unwrap();
        // Vertices 0 and 1 of the outer graph: `a`, and what stands for the build op.
        made.put(&vertex(merge(2), &[0, 1], None), 0).unwrap();
        let graph = made.builder.finish(None);

        let names: Vec<_> = graph.vertices().iter().map(crate::llb::vertex_name).collect();
        assert_eq!(names, ["local://a", "local://b", "local://c", "merge"]);
        let inputs: Vec<_> = graph.vertices()[3].inputs.iter().map(|e| e.vertex.0).collect();
        assert_eq!(inputs, [0, 1]);
        let of =
            |v: usize| graph.sources[graph.vertices()[v].meta.locations[0].source as usize].filename.clone();
        assert_eq!((of(0), of(1)), ("outer".into(), "inner".into()));
    }
}
