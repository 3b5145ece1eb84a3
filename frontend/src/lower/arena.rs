//! The operations of a build while it is lowered, and the walk that turns what is needed into a graph.
//!
//! Equal operations are one *node* with one set of outputs; each time one is added makes an *instance* with its own
//! name, lines and order of inputs. The walk goes over the instances as `llb.State.Marshal` goes over its vertices,
//! depth first from the head, so vertices come in BuildKit's order and get the descriptions that BuildKit gives them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use solver::graph::{Edge, Graph, GraphBuilder, SourceInfo, Vertex, VertexId, VertexMeta};
use solver::op::{FileActionKind, Op, Platform};

/// An output of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Output {
    instance: usize,
    index: u32,
}

#[derive(Debug)]
struct Instance {
    node: usize,
    /// In the order in which the walk visits them; may repeat.
    visits: Vec<usize>,
    meta: VertexMeta,
}

#[derive(Debug)]
struct Node {
    op: Op,
    /// Node and output of each input of the op.
    inputs: Vec<(usize, u32)>,
    platform: Option<Platform>,
}

/// An operation to be added.
#[derive(Debug)]
pub(crate) struct NewOp {
    /// The operation; its input indexes point into `inputs`.
    pub(crate) op: Op,
    /// Its inputs; no two of them equal, see [`Inputs`].
    pub(crate) inputs: Inputs,
    /// The platform, for operations that have one.
    pub(crate) platform: Option<Platform>,
    /// What describes it.
    pub(crate) meta: VertexMeta,
}

/// The inputs of an operation being built: equal ones share an index.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    nodes: Vec<(usize, u32)>,
    visits: Vec<usize>,
}

impl Inputs {
    /// Adds an input, unless an equal one is there, and returns its index; also the walk goes there next.
    pub(crate) fn add(&mut self, arena: &Arena, output: Output) -> usize {
        self.visits.push(output.instance);
        self.index_of(arena, output)
    }

    /// Adds an input like [`Self::add`], always under a new index.
    pub(crate) fn push(&mut self, arena: &Arena, output: Output) -> usize {
        self.visits.push(output.instance);
        self.nodes.push((arena.instances[output.instance].node, output.index));
        self.nodes.len() - 1
    }

    /// Says in which order the walk goes through the inputs, where it is not the order of adding.
    pub(crate) fn visit_in_order(&mut self, outputs: impl IntoIterator<Item = Output>) {
        self.visits = outputs.into_iter().map(|output| output.instance).collect();
    }

    fn index_of(&mut self, arena: &Arena, output: Output) -> usize {
        let input = (arena.instances[output.instance].node, output.index);
        self.nodes.iter().position(|other| *other == input).unwrap_or_else(|| {
            self.nodes.push(input);
            self.nodes.len() - 1
        })
    }
}

/// All operations added so far.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    instances: Vec<Instance>,
    nodes: Vec<Node>,
    /// Nodes by [`fingerprint`].
    index: HashMap<u64, Vec<usize>>,
    /// Files that imported operations come from; in graphs they follow the Dockerfile.
    sources: Vec<SourceInfo>,
}

impl Arena {
    /// Adds an operation and returns its first output.
    pub(crate) fn add(&mut self, new: NewOp) -> Output {
        let node = Node { op: new.op, inputs: new.inputs.nodes, platform: new.platform };
        let same = self.index.entry(fingerprint(&node)).or_default();
        let known = same.iter().copied().find(|&other| {
            let other = &self.nodes[other];
            other.op == node.op && other.inputs == node.inputs && other.platform == node.platform
        });
        let node = known.unwrap_or_else(|| {
            same.push(self.nodes.len());
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        self.instance(node, new.inputs.visits, new.meta)
    }

    /// Makes room for an operation that is only known later; [`Self::fill`] has to follow.
    pub(crate) fn reserve(&mut self) -> Output {
        let op = Op::Merge(solver::op::MergeOp { inputs: Vec::new() });
        self.nodes.push(Node { op, inputs: Vec::new(), platform: None });
        self.instance(self.nodes.len() - 1, Vec::new(), VertexMeta::default())
    }

    /// Gives a reserved output its operation.
    pub(crate) fn fill(&mut self, output: Output, new: NewOp) {
        let instance = &mut self.instances[output.instance];
        instance.visits = new.inputs.visits;
        instance.meta = new.meta;
        self.nodes[instance.node] = Node { op: new.op, inputs: new.inputs.nodes, platform: new.platform };
    }

    /// Takes over what another graph builds.
    pub(crate) fn import(&mut self, graph: &Graph) -> Option<Output> {
        let head = graph.head?;
        let mut outputs: Vec<usize> = Vec::new();
        let offset = self.sources.len() as u32 + 1;
        self.sources.extend(graph.sources.iter().cloned());
        for vertex in graph.vertices() {
            let mut inputs = Inputs::default();
            for edge in &vertex.inputs {
                inputs.push(self, Output { instance: outputs[edge.vertex.index()], index: edge.output });
            }
            let (op, platform, mut meta) = (vertex.op.clone(), vertex.platform.clone(), vertex.meta.clone());
            meta.locations.iter_mut().for_each(|location| location.source += offset);
            outputs.push(self.add(NewOp { op, inputs, platform, meta }).instance);
        }
        Some(Output { instance: outputs[head.vertex.index()], index: head.output })
    }

    fn instance(&mut self, node: usize, visits: Vec<usize>, meta: VertexMeta) -> Output {
        self.instances.push(Instance { node, visits, meta });
        Output { instance: self.instances.len() - 1, index: 0 }
    }

    /// The graph of what `head` needs.
    pub(crate) fn graph(&self, head: Option<Output>, source: Option<SourceInfo>) -> Graph {
        let mut walk = Walk {
            emitted: vec![None; self.nodes.len()],
            visited: vec![false; self.instances.len()],
            builder: GraphBuilder::new(),
            arena: self,
        };
        if let Some(source) = source {
            walk.builder.add_source(source);
            for source in &self.sources {
                walk.builder.add_source(source.clone());
            }
        }
        let head = head.map(|output| {
            walk.from(output.instance);
            let vertex = walk.emitted[self.instances[output.instance].node];
            Edge { vertex: vertex.expect("the walk ends with its start"), output: output.index }
        });
        walk.builder.finish(head)
    }
}

/// Depth first, inputs before users, on a stack of its own: builds may be deeper than the thread's.
struct Walk<'a> {
    arena: &'a Arena,
    emitted: Vec<Option<VertexId>>,
    visited: Vec<bool>,
    builder: GraphBuilder,
}

impl Walk<'_> {
    fn from(&mut self, start: usize) {
        let mut stack = vec![(start, 0)];
        while let Some((instance, done)) = stack.pop() {
            if done == 0 && self.visited[instance] {
                continue;
            }
            self.visited[instance] = true;
            match self.arena.instances[instance].visits.get(done) {
                Some(&next) => stack.extend([(instance, done + 1), (next, 0)]),
                None => self.emit(instance),
            }
        }
    }

    fn emit(&mut self, instance: usize) {
        let Instance { node, meta, .. } = &self.arena.instances[instance];
        if let Some(id) = self.emitted[*node] {
            merge(self.builder.meta_mut(id), meta);
            return;
        }
        let Node { op, inputs, platform } = &self.arena.nodes[*node];
        let edge = |&(node, output): &(usize, u32)| Edge {
            vertex: self.emitted[node].expect("inputs are visited before their users"),
            output,
        };
        let vertex = Vertex {
            op: op.clone(),
            inputs: inputs.iter().map(edge).collect(),
            platform: platform.clone(),
            constraints: Vec::new(),
            meta: meta.clone(),
        };
        self.emitted[*node] = Some(self.builder.add(vertex).expect("inputs are emitted before their users"));
    }
}

/// A second description of one vertex adds to the first and wins where both speak.
fn merge(meta: &mut VertexMeta, other: &VertexMeta) {
    meta.ignore_cache |= other.ignore_cache;
    meta.description.extend(other.description.clone());
    meta.caps.extend(other.caps.clone());
    meta.locations.extend(other.locations.iter().cloned());
    if other.export_cache.is_some() {
        meta.export_cache = other.export_cache;
    }
    if other.progress_group.is_some() {
        meta.progress_group.clone_from(&other.progress_group);
    }
    if other.resources.is_some() {
        meta.resources.clone_from(&other.resources);
    }
}

/// Equal nodes have equal fingerprints; unequal ones seldom.
fn fingerprint(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    node.inputs.hash(&mut hasher);
    node.platform.hash(&mut hasher);
    match &node.op {
        Op::Source(source) => source.identifier.hash(&mut hasher),
        Op::Exec(exec) => exec.meta.args.hash(&mut hasher),
        Op::File(file) => {
            for action in &file.actions {
                match &action.kind {
                    FileActionKind::Copy(copy) => (&copy.src, &copy.dest).hash(&mut hasher),
                    FileActionKind::MkFile(file) => (&file.path, &file.data).hash(&mut hasher),
                    FileActionKind::MkDir(dir) => dir.path.hash(&mut hasher),
                    FileActionKind::Rm(rm) => rm.path.hash(&mut hasher),
                    FileActionKind::Symlink(link) => link.newpath.hash(&mut hasher),
                }
            }
        }
        Op::Merge(_) | Op::Diff(_) | Op::Build(_) | Op::Passthrough(_) => {}
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use solver::op::SourceOp;

    use super::*;

    fn source(arena: &mut Arena, name: &str, custom: &str) -> Output {
        let op = Op::Source(SourceOp { identifier: name.to_owned(), attrs: Default::default() });
        let meta = VertexMeta {
            description: [("llb.customname".to_owned(), custom.to_owned())].into(),
            ..VertexMeta::default()
        };
        arena.add(NewOp { op, inputs: Inputs::default(), platform: None, meta })
    }

    #[test]
    fn equal_operations_are_one_vertex_under_the_later_name() {
        let mut arena = Arena::default();
        let (a, b) = (source(&mut arena, "x://1", "first"), source(&mut arena, "x://1", "second"));
        let c = source(&mut arena, "x://2", "other");
        let mut inputs = Inputs::default();
        let indexes = [a, c, b].map(|output| inputs.add(&arena, output));
        assert_eq!(indexes, [0, 1, 0]);
        let op = Op::Merge(solver::op::MergeOp { inputs: vec![Some(0), Some(1)] });
        let top = arena.add(NewOp { op, inputs, platform: None, meta: VertexMeta::default() });
        source(&mut arena, "x://3", "not needed");
        let graph = arena.graph(Some(top), None);
        let names: Vec<_> = graph.vertices().iter().map(|vertex| vertex.meta.custom_name()).collect();
        assert_eq!(names, [Some("second"), Some("other"), None]);
        assert_eq!(graph.head, Some(Edge { vertex: VertexId(2), output: 0 }));
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let mut arena = Arena::default();
        let mut last = source(&mut arena, "x://0", "start");
        for _ in 0..200_000 {
            let mut inputs = Inputs::default();
            inputs.add(&arena, last);
            let op = Op::Merge(solver::op::MergeOp { inputs: vec![Some(0)] });
            last = arena.add(NewOp { op, inputs, platform: None, meta: VertexMeta::default() });
        }
        assert_eq!(arena.graph(Some(last), None).vertices().len(), 200_001);
    }
}
