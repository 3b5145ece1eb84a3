//! The names that clients know vertices by.

use bytes::Bytes;
use solver::{Digest, Graph, Vertex};

use super::definition::marshal;

/// The LLB digest of each vertex, by index: the one it came with, else that of its marshalled form.
pub fn vertex_digests(graph: &Graph) -> Vec<Digest> {
    digests(graph, |vertex| vertex.meta.llb_digest).0
}

/// Digests and marshalled forms; `known` digests are not computed again, though inputs refer to them.
pub(super) fn digests(graph: &Graph, known: fn(&Vertex) -> Option<Digest>) -> (Vec<Digest>, Vec<Bytes>) {
    let mut digests: Vec<Digest> = Vec::with_capacity(graph.vertices().len());
    let mut ops = Vec::with_capacity(graph.vertices().len());
    for vertex in graph.vertices() {
        match known(vertex) {
            Some(digest) => digests.push(digest),
            None => {
                let op = marshal(vertex, &digests);
                digests.push(Digest::of(&op));
                ops.push(op);
            }
        }
    }
    (digests, ops)
}
