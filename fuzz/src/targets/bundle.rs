//! Trees that come from another machine: whatever they are, they can be compared with those that are here.

use std::sync::Arc;

use bytes::Bytes;
use cache::fileop::difference::differences;
use cache::tree::{Bundle, MemoryNodes, NodeId, Trees};
use solver::Selection;
use solver::digest::Hasher;

pub(super) fn run(bytes: &[u8]) {
    if let Some(bundle) = Bundle::decode(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(Bundle::decode(&bundle.encode().into()), Some(bundle));
    }
    // A node alone, which the bytes of a whole bundle seldom are.
    let mut hasher = Hasher::new("rbuild.tree.node.v1");
    hasher.bytes(bytes);
    let root = NodeId::new(hasher.finish());
    let Some(bundle) = Bundle::decode(&[&[1][..], &length(bytes.len()), bytes].concat().into()) else {
        return;
    };
    let here = Trees::new(Arc::new(MemoryNodes::default()));
    let both = here.with(&bundle);
    let all = [Selection { path: "/".to_owned(), ..Selection::default() }];
    for (old, new) in [(root, Trees::empty()), (Trees::empty(), root)] {
        if let Ok(found) = differences(&both, &old, &new, &all) {
            found.iter().for_each(|one| drop(one.path.to_string()));
        }
    }
    let packed = both.bundle(&[root], bytes.len());
    if let Ok(Some(packed)) = packed {
        assert_eq!(packed, bundle, "what came is what goes on");
    }
}

/// LEB128, as lengths are written.
fn length(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}
