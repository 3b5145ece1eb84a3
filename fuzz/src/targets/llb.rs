//! An LLB definition: what is accepted can be written, and is then read as the same.

use buildd::llb::{from_definition, to_definition, vertex_digests};
use bytes::Bytes;
use prost::Message as _;
use proto::pb;
use solver::Digest;

pub(super) fn run(bytes: &[u8]) {
    let Ok(mut definition) = pb::Definition::decode(bytes) else { return };
    let _ = from_definition(&definition);
    link(&mut definition);
    let Ok(graph) = from_definition(&definition) else { return };
    assert_eq!(vertex_digests(&graph).len(), graph.vertices().len());
    let written = to_definition(&graph);
    let again = from_definition(&written).expect("a definition that was accepted");
    assert_eq!(again.vertices().len(), graph.vertices().len());
    assert_eq!(to_definition(&again), written, "the second writing differs from the first");
}

/// Makes inputs name ops that exist: no mutation would ever guess a digest.
fn link(definition: &mut pb::Definition) {
    let mut digests: Vec<Digest> = Vec::new();
    for bytes in &mut definition.def {
        if let Ok(mut op) = pb::Op::decode(bytes.clone()) {
            for (number, input) in op.inputs.iter_mut().enumerate() {
                let known = input.digest.parse().is_ok_and(|digest: Digest| digests.contains(&digest));
                let before = digests.len().checked_sub(1 + number).and_then(|at| digests.get(at));
                if let (false, Some(digest)) = (known, before) {
                    input.digest = digest.to_string();
                }
            }
            *bytes = op.encode_to_vec().into();
        }
        digests.push(Digest::of(bytes));
    }
    if let Some(last) = digests.last() {
        let inputs = vec![pb::Input { digest: last.to_string(), index: 0 }];
        definition.def.push(Bytes::from(pb::Op { inputs, ..pb::Op::default() }.encode_to_vec()));
    }
}
