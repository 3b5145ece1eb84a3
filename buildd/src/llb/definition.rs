//! Whole definitions.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use prost::Message as _;
use proto::pb;
use solver::graph::{LinuxResources, ProgressGroup, SourceInfo, SourceLocation, SourceRange, VertexMeta};
use solver::{Digest, Edge, Graph, GraphBuilder, Vertex, VertexId};

use super::decode::{Outputs, decode_op};
use super::digests::{digests, vertex_digests};
use super::encode::encode_op;
use super::name::progress_group;
use super::{Invalid, LlbError};

/// How deep build ops may lie within build ops.
const MAX_DEPTH: usize = 8;

/// Turns LLB into a graph of what its result needs.
///
/// # Errors
/// Anything that is wrong with it.
pub fn from_definition(definition: &pb::Definition) -> Result<Graph, LlbError> {
    from_nested(definition, 0)
}

/// Turns a graph into LLB; a graph without head (scratch) becomes the empty definition.
pub fn to_definition(graph: &Graph) -> pb::Definition {
    let Some(head) = graph.head else { return pb::Definition::default() };
    let (digests, mut def) = digests(graph, |_| None);
    let mut metadata = BTreeMap::new();
    let mut locations = BTreeMap::new();
    for (vertex, digest) in graph.vertices().iter().zip(&digests) {
        metadata.insert(digest.to_string(), op_metadata(&vertex.meta));
        if !vertex.meta.locations.is_empty() {
            let list = vertex.meta.locations.iter().map(location).collect();
            locations.insert(digest.to_string(), pb::Locations { locations: list });
        }
    }
    let input = pb::Input { digest: digests[head.vertex.index()].to_string(), index: head.output.into() };
    let terminal = pb::Op { inputs: vec![input], ..pb::Op::default() };
    def.push(terminal.encode_to_vec().into());
    let infos = graph.sources.iter().map(source_info).collect();
    pb::Definition { def, metadata, source: Some(pb::Source { locations, infos }) }
}

/// A client's definition without what says nothing of where vertices come from: on their way to another client those entries lose their
/// (empty) value, which Go reads as no value at all, and BuildKit's client does not expect.
pub fn without_empty_locations(mut definition: pb::Definition) -> pb::Definition {
    drop_empty_locations(&mut definition, 0);
    definition
}

fn drop_empty_locations(definition: &mut pb::Definition, depth: usize) {
    let Some(source) = definition.source.as_mut().filter(|_| depth <= MAX_DEPTH) else { return };
    source.locations.retain(|_, locations| !locations.locations.is_empty());
    for nested in source.infos.iter_mut().filter_map(|info| info.definition.as_mut()) {
        drop_empty_locations(nested, depth + 1);
    }
}

pub(super) fn from_nested(definition: &pb::Definition, depth: usize) -> Result<Graph, LlbError> {
    if depth > MAX_DEPTH {
        return Err(LlbError::TooDeep(MAX_DEPTH));
    }
    let mut ops = HashMap::new();
    let mut terminal = None;
    for (index, bytes) in definition.def.iter().enumerate() {
        let malformed = |err: prost::DecodeError| LlbError::Malformed { index, reason: err.to_string() };
        let op = pb::Op::decode(Bytes::clone(bytes)).map_err(malformed)?;
        let digest = Digest::of(bytes);
        terminal = Some(op.inputs.first().cloned());
        ops.insert(digest, op);
    }
    let result = terminal.ok_or(LlbError::Empty)?.ok_or(LlbError::NoResult)?;
    let (ids, outputs) = (HashMap::new(), Vec::new());
    let mut loader = Loader { definition, ops, ids, outputs, builder: GraphBuilder::new(), depth };
    let head = loader.load(&result)?;
    let mut graph = loader.builder.finish(Some(head));
    if let Some(source) = &definition.source {
        graph.sources = source.infos.iter().map(info).collect();
    }
    Ok(graph)
}

struct Loader<'a> {
    definition: &'a pb::Definition,
    ops: HashMap<Digest, pb::Op>,
    /// `None` while its inputs are being loaded.
    ids: HashMap<Digest, Option<VertexId>>,
    /// What each vertex of the graph makes.
    outputs: Vec<Outputs>,
    builder: GraphBuilder,
    depth: usize,
}

impl Loader<'_> {
    /// Loads what `result` needs, inputs first, without recursion: chains may be long.
    fn load(&mut self, result: &pb::Input) -> Result<Edge, LlbError> {
        let head = self.digest(result)?;
        let mut stack = vec![(head, false)];
        while let Some((digest, inputs_done)) = stack.pop() {
            match self.ids.get(&digest) {
                Some(Some(_)) => {}
                Some(None) if inputs_done => self.add(digest)?,
                Some(None) => return Err(LlbError::Cycle(digest)),
                None => {
                    self.ids.insert(digest, None);
                    stack.push((digest, true));
                    let inputs = self.ops.get(&digest).map(|op| op.inputs.clone()).unwrap_or_default();
                    for input in inputs.iter().rev() {
                        let digest = self.digest(input)?;
                        if !matches!(self.ids.get(&digest), Some(Some(_))) {
                            stack.push((digest, false));
                        }
                    }
                }
            }
        }
        self.edge(result).map_err(|reason| LlbError::Op { digest: head, reason })
    }

    /// The op that an input names, if the definition holds it.
    fn digest(&self, input: &pb::Input) -> Result<Digest, LlbError> {
        let known = input.digest.parse().ok().filter(|digest| self.ops.contains_key(digest));
        known.ok_or_else(|| LlbError::MissingInput(input.digest.chars().take(128).collect()))
    }

    /// An input whose op is loaded.
    fn edge(&self, input: &pb::Input) -> Result<Edge, Invalid> {
        let missing = Invalid::Index { what: "output", index: input.index };
        let id =
            input.digest.parse::<Digest>().ok().and_then(|digest| self.ids.get(&digest).copied().flatten());
        let (Some(vertex), Ok(output)) = (id, u32::try_from(input.index)) else { return Err(missing) };
        match self.outputs[vertex.index()].contain(output) {
            true => Ok(Edge { vertex, output }),
            false => Err(missing),
        }
    }

    fn add(&mut self, digest: Digest) -> Result<(), LlbError> {
        let Some(op) = self.ops.get(&digest) else { return Err(LlbError::MissingInput(digest.to_string())) };
        let invalid = |reason| LlbError::Op { digest, reason };
        let inputs =
            op.inputs.iter().map(|input| self.edge(input)).collect::<Result<Vec<_>, _>>().map_err(invalid)?;
        let mut vertex = Vertex {
            op: decode_op(op, self.depth).map_err(|err| err.at(digest))?,
            inputs,
            platform: op.platform.as_ref().map(super::decode::platform),
            constraints: op.constraints.as_ref().map(|c| c.filter.clone()).unwrap_or_default(),
            meta: self.meta(digest)?,
        };
        // Sources may yet be replaced, and their names are all that counts.
        if !matches!(vertex.op, solver::Op::Source(_) | solver::Op::Build(_)) {
            let ours = wire_op(&vertex);
            if op.op != ours.op || op.platform != ours.platform {
                let given = pb::Op { inputs: Vec::new(), constraints: None, ..op.clone() };
                vertex.meta.wire = Some(given.encode_to_vec().into());
            }
        }
        let outputs = Outputs::of(&vertex.op);
        let id = self.builder.add(vertex).map_err(|_| LlbError::Cycle(digest))?;
        self.outputs.push(outputs);
        self.ids.insert(digest, Some(id));
        Ok(())
    }

    fn meta(&self, digest: Digest) -> Result<VertexMeta, LlbError> {
        let key = digest.to_string();
        let given = self.definition.metadata.get(&key).cloned().unwrap_or_default();
        let source = self.definition.source.as_ref();
        let count = source.map_or(0, |source| source.infos.len());
        let mut locations = Vec::new();
        for location in source.and_then(|s| s.locations.get(&key)).map(|l| &*l.locations).unwrap_or_default()
        {
            let index = location.source_index;
            let known = u32::try_from(index).ok().filter(|&index| (index as usize) < count);
            let source = known.ok_or(LlbError::Location { digest, index })?;
            locations.push(SourceLocation { source, ranges: location.ranges.iter().map(range).collect() });
        }
        Ok(VertexMeta {
            variables: Default::default(),
            wire: None,
            description: given.description,
            ignore_cache: given.ignore_cache,
            export_cache: given.export_cache.map(|e| e.value),
            caps: given.caps,
            progress_group: given.progress_group.map(|g| ProgressGroup {
                id: g.id,
                name: g.name,
                weak: g.weak,
            }),
            resources: given.linux_resources.map(resources),
            locations,
            llb_digest: Some(digest),
        })
    }
}

fn resources(r: pb::LinuxResources) -> LinuxResources {
    LinuxResources {
        memory: r.memory,
        memory_swap: r.memory_swap,
        cpu_shares: r.cpu_shares,
        cpu_period: r.cpu_period,
        cpu_quota: r.cpu_quota,
        cpuset_cpus: r.cpuset_cpus,
        cpuset_mems: r.cpuset_mems,
    }
}

fn op_metadata(meta: &VertexMeta) -> pb::OpMetadata {
    pb::OpMetadata {
        ignore_cache: meta.ignore_cache,
        description: meta.description.clone(),
        export_cache: meta.export_cache.map(|value| pb::ExportCache { value }),
        caps: meta.caps.clone(),
        progress_group: meta.progress_group.as_ref().map(progress_group),
        linux_resources: meta.resources.as_ref().map(|r| pb::LinuxResources {
            memory: r.memory,
            memory_swap: r.memory_swap,
            cpu_shares: r.cpu_shares,
            cpu_period: r.cpu_period,
            cpu_quota: r.cpu_quota,
            cpuset_cpus: r.cpuset_cpus.clone(),
            cpuset_mems: r.cpuset_mems.clone(),
        }),
    }
}

fn info(info: &pb::SourceInfo) -> SourceInfo {
    let def = info.definition.iter().flat_map(|definition| &definition.def);
    SourceInfo {
        filename: info.filename.clone(),
        language: info.language.clone(),
        data: info.data.to_vec(),
        definition: def.map(|op| op.to_vec()).collect(),
    }
}

/// How a file was loaded, where that is known.
pub fn loaded_by(info: &SourceInfo) -> Option<pb::Definition> {
    let def: Vec<Bytes> = info.definition.iter().map(|op| op.clone().into()).collect();
    // Without any, Go's clients take it for no definition at all.
    let metadata = def.iter().map(|op| (Digest::of(op).to_string(), pb::OpMetadata::default())).collect();
    (!def.is_empty()).then(|| pb::Definition { def, metadata, source: None })
}

fn source_info(info: &SourceInfo) -> pb::SourceInfo {
    pb::SourceInfo {
        filename: info.filename.clone(),
        data: info.data.clone().into(),
        definition: loaded_by(info),
        language: info.language.clone(),
    }
}

/// Negative positions, which nothing means, count as none.
fn range(range: &pb::Range) -> SourceRange {
    let number = |n: i32| u32::try_from(n).unwrap_or(0);
    let (start, end) = (range.start.unwrap_or_default(), range.end.unwrap_or_default());
    SourceRange {
        start_line: number(start.line),
        start_character: number(start.character),
        end_line: number(end.line),
        end_character: number(end.character),
    }
}

/// The wire form of a location.
pub(super) fn location(location: &SourceLocation) -> pb::Location {
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let position = |line, character| Some(pb::Position { line: number(line), character: number(character) });
    let ranges = location.ranges.iter().map(|r| pb::Range {
        start: position(r.start_line, r.start_character),
        end: position(r.end_line, r.end_character),
    });
    pb::Location { source_index: number(location.source), ranges: ranges.collect() }
}

/// The wire form of one vertex of a graph.
pub fn to_op(graph: &Graph, id: VertexId) -> pb::Op {
    with_inputs(graph.vertex(id), &vertex_digests(graph))
}

/// The marshalled form of a vertex whose inputs have these digests.
pub(super) fn marshal(vertex: &Vertex, digests: &[Digest]) -> Bytes {
    with_inputs(vertex, digests).encode_to_vec().into()
}

fn with_inputs(vertex: &Vertex, digests: &[Digest]) -> pb::Op {
    let inputs = vertex.inputs.iter().map(|edge| pb::Input {
        digest: digests[edge.vertex.index()].to_string(),
        index: edge.output.into(),
    });
    pb::Op { inputs: inputs.collect(), ..wire_op(vertex) }
}

/// The wire form of a vertex without its inputs.
pub(super) fn wire_op(vertex: &Vertex) -> pb::Op {
    pb::Op {
        inputs: Vec::new(),
        op: Some(encode_op(&vertex.op, vertex.inputs.len())),
        platform: vertex.platform.as_ref().map(super::encode::platform),
        constraints: (!vertex.constraints.is_empty())
            .then(|| pb::WorkerConstraints { filter: vertex.constraints.clone() }),
    }
}
