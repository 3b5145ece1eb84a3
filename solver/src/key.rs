//! Cache keys: which fields of an op count, and how its inputs are used.
//!
//! Byte format (see [`Hasher`]): a tag per kind of op, then each counted field in the order of the code below.
//! Every struct is taken apart without `..`, so a new field does not compile until it is given a class:
//! hashed, or bound to `_name` with the reason why it is not. Golden tests pin the digests.

mod exec;
mod file;
mod uses;

pub use uses::{Selection, Use, input_uses};

use crate::digest::{Digest, Hasher};
use crate::graph::Vertex;
use crate::op::{DiffOp, MergeOp, Op, PassthroughOp, Platform};
use crate::record::Key;

const OP_DOMAIN: &str = "rbuild.op.v1";
const DEFINITION_DOMAIN: &str = "rbuild.definition.v1";
const CONTENT_DOMAIN: &str = "rbuild.content.v1";

/// The canonical digest of what a vertex does, inputs aside. Sources are identified by their [`crate::Source`] instead.
pub fn op_digest(vertex: &Vertex) -> Digest {
    let mut h = Hasher::new(OP_DOMAIN);
    match &vertex.op {
        Op::Source(s) => {
            h.str("source").str(&s.identifier).u64(s.attrs.len() as u64);
            for (k, v) in &s.attrs {
                h.str(k).str(v);
            }
        }
        Op::Exec(e) => {
            h.str("exec");
            platform(&mut h, vertex.platform.as_ref());
            exec::hash(&mut h, e);
        }
        Op::File(f) => {
            h.str("file");
            file::hash(&mut h, f);
        }
        Op::Merge(MergeOp { inputs }) => {
            h.str("merge").u64(inputs.len() as u64);
            for i in inputs {
                index(&mut h, *i);
            }
        }
        Op::Diff(DiffOp { lower, upper }) => {
            h.str("diff");
            index(&mut h, *lower);
            index(&mut h, *upper);
        }
        Op::Build(b) => {
            h.str("build");
            index(&mut h, b.builder);
            for (k, v) in &b.attrs {
                h.str(k).str(v);
            }
        }
        Op::Passthrough(PassthroughOp { id: _only_names_it, outputs }) => {
            h.str("passthrough").u64(outputs.len() as u64);
            for o in outputs {
                h.u64(*o as u64);
            }
        }
    }
    h.finish()
}

fn platform(h: &mut Hasher, p: Option<&Platform>) {
    let Some(Platform { architecture, os, variant, os_version }) = p else {
        h.bool(false);
        return;
    };
    h.bool(true).str(architecture).str(os).str(variant).str(os_version);
}

fn index(h: &mut Hasher, i: Option<usize>) {
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

/// What an input counts as in a definition key: output `output` of the vertex with definition key `key`.
pub fn edge_digest(key: &Key, output: u32) -> Digest {
    let mut h = Hasher::new("rbuild.edge.v1");
    h.digest(&key.0).u64(output.into());
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
