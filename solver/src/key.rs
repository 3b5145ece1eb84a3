//! Cache keys: which fields of an op count, and how its inputs are used.
//!
//! Byte format (see [`Hasher`]): a tag per kind of op, then each counted field in the order of the code below.
//! Every struct is taken apart without `..`, so a new field does not compile until it is given a class:
//! hashed, or bound to `_name` with the reason why it is not. Golden tests pin the digests.

mod exec;
mod fields;
mod file;
mod uses;

pub use uses::{Selection, Use, input_uses};

use std::collections::BTreeMap;

use crate::digest::{Digest, Hasher};
use crate::graph::{Edge, Graph, Vertex};
use crate::op::{BuildOp, DiffOp, MergeOp, Op, PassthroughOp, Platform, SourceOp};
use crate::record::{Key, LayerId};
use fields::Writer;

const OP_DOMAIN: &str = "rbuild.op.v2";
const DEFINITION_DOMAIN: &str = "rbuild.definition.v1";
const SHAPE_DOMAIN: &str = "rbuild.shape.v1";
const CONTENT_DOMAIN: &str = "rbuild.content.v1";
const EDGE_DOMAIN: &str = "rbuild.edge.v2";
const LAYERS_DOMAIN: &str = "rbuild.layers.v1";

/// The digest of what a vertex does, whatever its inputs hold: the same for one step of successive builds.
pub fn step_digest(vertex: &Vertex) -> Digest {
    op_digest(vertex, &input_uses(vertex))
}

/// The canonical digest of what a vertex does with inputs used as `uses` says ([`input_uses`]); the inputs themselves
/// aside. Sources are identified by their [`crate::Source`] instead.
pub fn op_digest(vertex: &Vertex, uses: &[Use]) -> Digest {
    let mut h = Writer::whole(OP_DOMAIN);
    op(&mut h, vertex, uses);
    h.finish()
}

/// What [`op_digest`] counts, field by field: names such as `command`, `env.PATH` or `0.chmod`, and the digest of each value.
/// Two ops of one digest have the same fields; of another one mostly, but for the order of things.
pub fn op_fields(vertex: &Vertex, uses: &[Use]) -> BTreeMap<String, Digest> {
    let mut h = Writer::by_field(OP_DOMAIN);
    op(&mut h, vertex, uses);
    h.finish_fields()
}

fn op(h: &mut Writer, vertex: &Vertex, uses: &[Use]) {
    match &vertex.op {
        Op::Source(SourceOp { identifier, attrs }) => {
            h.named("source").str("source").str(identifier);
            settings(h, attrs);
        }
        Op::Exec(e) => {
            h.between().str("exec").named("platform");
            platform(h, vertex.platform.as_ref());
            exec::hash(h, e, uses);
        }
        Op::File(f) => {
            h.between().str("file");
            file::hash(h, f, uses);
        }
        Op::Merge(MergeOp { inputs }) => {
            h.named("merge").str("merge").u64(inputs.len() as u64);
            for i in inputs {
                index(h, *i);
            }
        }
        Op::Diff(DiffOp { lower, upper }) => {
            h.named("diff").str("diff");
            index(h, *lower);
            index(h, *upper);
        }
        Op::Build(BuildOp { builder, inputs, definition, attrs }) => {
            h.named("build").str("build");
            index(h, *builder);
            h.u64(inputs.len() as u64);
            for (name, input) in inputs {
                h.str(name).u64(*input as u64);
            }
            h.bool(definition.is_some());
            if let Some(graph) = definition {
                nested(h, graph);
            }
            settings(h, attrs);
        }
        Op::Passthrough(PassthroughOp { id: _only_names_it, outputs }) => {
            h.named("passthrough").str("passthrough").u64(outputs.len() as u64);
            for o in outputs {
                h.u64(*o as u64);
            }
        }
    }
}

/// What each vertex of a graph is, all that it stands on included, as it is written down: equal for equal vertices of
/// other graphs. Where [`definition_key`] needs sources to be looked at, this needs nothing.
pub fn shapes(graph: &Graph, ops: impl IntoIterator<Item = Digest>) -> Vec<Digest> {
    let mut shapes: Vec<Digest> = Vec::with_capacity(graph.vertices().len());
    for (vertex, op) in graph.vertices().iter().zip(ops) {
        let mut h = Hasher::new(SHAPE_DOMAIN);
        h.digest(&op).u64(vertex.inputs.len() as u64);
        for e in &vertex.inputs {
            h.digest(&shapes[e.vertex.index()]).u64(e.output.into());
        }
        shapes.push(h.finish());
    }
    shapes
}

/// A graph within an op. Its sources count as they are named: nothing has looked at them yet.
fn nested(h: &mut Writer, graph: &Graph) {
    h.u64(graph.vertices().len() as u64);
    for vertex in graph.vertices() {
        h.digest(&op_digest(vertex, &input_uses(vertex))).u64(vertex.inputs.len() as u64);
        vertex.inputs.iter().for_each(|e| edge(h, *e));
    }
    h.bool(graph.head.is_some());
    graph.head.iter().for_each(|e| edge(h, *e));
}

fn edge(h: &mut Writer, e: Edge) {
    h.u64(e.vertex.0.into()).u64(e.output.into());
}

fn settings(h: &mut Writer, attrs: &BTreeMap<String, String>) {
    h.u64(attrs.len() as u64);
    for (name, value) in attrs {
        h.str(name).str(value);
    }
}

fn platform(h: &mut Writer, p: Option<&Platform>) {
    let Some(Platform { architecture, os, variant, os_version }) = p else {
        h.bool(false);
        return;
    };
    h.bool(true).str(architecture).str(os).str(variant).str(os_version);
}

fn index(h: &mut Writer, i: Option<usize>) {
    h.i64(i.map_or(-1, |i| i as i64));
}

/// The definition key: the op and what its inputs are *defined* as; known before anything runs.
///
/// An input is a definition key with an output number, a source's identity, or the digest of selected context files.
pub fn definition_key(op: &Digest, inputs: &[Digest]) -> Key {
    Key(join(DEFINITION_DOMAIN, op, inputs))
}

/// The content key: the op and what its inputs *contain*, each as far as the op uses it.
pub fn content_key(op: &Digest, inputs: &[Digest]) -> Key {
    Key(join(CONTENT_DOMAIN, op, inputs))
}

/// What an input counts as in a definition key: what is used of output `output` of the vertex with definition key `key`.
pub fn edge_digest(key: &Key, output: u32, used: &Use) -> Digest {
    let mut h = Hasher::new(EDGE_DOMAIN);
    h.digest(&key.0).u64(output.into());
    uses::hash_use(&mut h, used);
    h.finish()
}

/// What an input counts as in a content key where its layers matter ([`Use::Layers`]).
pub fn layers_digest(content: &Digest, chain: &[LayerId]) -> Digest {
    let mut h = Hasher::new(LAYERS_DOMAIN);
    h.digest(content).u64(chain.len() as u64);
    for layer in chain {
        h.digest(&layer.0);
    }
    h.finish()
}

fn join(domain: &str, op: &Digest, inputs: &[Digest]) -> Digest {
    let mut h = Hasher::new(domain);
    h.digest(op).u64(inputs.len() as u64);
    for i in inputs {
        h.digest(i);
    }
    h.finish()
}

#[cfg(test)]
mod tests;
