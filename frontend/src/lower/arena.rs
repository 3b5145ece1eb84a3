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
        self.nodes.push(Node { op: nothing(), inputs: Vec::new(), platform: None });
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
        let order = self.order(head);
        let mut emitter = Emitter::new(self, source, order.len());
        for instance in order {
            let Instance { node, meta, .. } = &self.instances[instance];
            let Node { op, inputs, platform } = &self.nodes[*node];
            emitter.emit(*node, inputs, || (op.clone(), platform.clone()), meta.clone());
        }
        let head = head.map(|output| emitter.edge(self.instances[output.instance].node, output.index));
        emitter.builder.finish(head)
    }

    /// As [`Self::graph`], the last one: nothing is copied.
    pub(crate) fn into_graph(mut self, head: Option<Output>, source: Option<SourceInfo>) -> Graph {
        let order = self.order(head);
        let mut emitter = Emitter::new(&self, source, order.len());
        for instance in order {
            let Instance { node, meta, .. } = &mut self.instances[instance];
            let Node { op, inputs, platform } = &mut self.nodes[*node];
            let take = || (std::mem::replace(op, nothing()), platform.take());
            emitter.emit(*node, inputs, take, std::mem::take(meta));
        }
        let head = head.map(|output| emitter.edge(self.instances[output.instance].node, output.index));
        emitter.builder.finish(head)
    }

    /// The instances that `head` needs, inputs before users; on a stack of its own, as builds may be deeper than the
    /// thread's.
    fn order(&self, head: Option<Output>) -> Vec<usize> {
        let (mut order, mut visited) = (Vec::new(), vec![false; self.instances.len()]);
        let mut stack: Vec<(usize, usize)> = head.iter().map(|output| (output.instance, 0)).collect();
        while let Some((instance, done)) = stack.pop() {
            if done == 0 && std::mem::replace(&mut visited[instance], true) {
                continue;
            }
            match self.instances[instance].visits.get(done) {
                Some(&next) => stack.extend([(instance, done + 1), (next, 0)]),
                None => order.push(instance),
            }
        }
        order
    }
}

/// An operation in the place of one that is not there yet, or no more.
fn nothing() -> Op {
    Op::Merge(solver::op::MergeOp { inputs: Vec::new() })
}

/// Turns nodes into vertices.
struct Emitter {
    emitted: Vec<Option<VertexId>>,
    builder: GraphBuilder,
}

impl Emitter {
    fn new(arena: &Arena, source: Option<SourceInfo>, vertices: usize) -> Self {
        let mut builder = GraphBuilder::with_capacity(vertices);
        if let Some(source) = source {
            builder.add_source(source);
            for source in &arena.sources {
                builder.add_source(source.clone());
            }
        }
        Self { emitted: vec![None; arena.nodes.len()], builder }
    }

    fn edge(&self, node: usize, output: u32) -> Edge {
        Edge { vertex: self.emitted[node].expect("what is used was emitted before"), output }
    }

    fn emit(
        &mut self,
        node: usize,
        inputs: &[(usize, u32)],
        op: impl FnOnce() -> (Op, Option<Platform>),
        meta: VertexMeta,
    ) {
        if let Some(id) = self.emitted[node] {
            merge(self.builder.meta_mut(id), &meta);
            return;
        }
        let inputs = inputs.iter().map(|&(node, output)| self.edge(node, output)).collect();
        let (op, platform) = op();
        let vertex = Vertex { op, inputs, platform, constraints: Vec::new(), meta };
        self.emitted[node] = Some(self.builder.add(vertex).expect("inputs are emitted before their users"));
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
        Op::Exec(exec) => (&exec.meta.args, &exec.meta.env).hash(&mut hasher),
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
        assert_eq!(arena.into_graph(Some(top), None), graph);
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
