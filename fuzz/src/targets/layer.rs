//! A layer's tar: unpacked it stays in its directory; packed and unpacked again it is the same layer.

use std::path::Path;
use std::sync::Arc;

use cache::layer::{Base, Change, Entries, LayerEntry, TarOptions, UnpackLimits, unpack, write_tar};
use cache::tree::{MemoryNodes, Trees};

use crate::tar_repair::{repair, scratch};

const LIMITS: UnpackLimits = UnpackLimits { bytes: 1 << 20, entries: 1000 };

pub(super) fn run(bytes: &[u8]) {
    let dir = scratch();
    let archive = repair(bytes);
    let _ = try_unpack(bytes, &dir.path().join("raw"));
    let first = try_unpack(&archive, &dir.path().join("first"));
    if let Some(entries) = first {
        let again = write_tar(&entries, &[dir.path().join("first")], TarOptions::default(), Vec::new());
        let again = again.expect("a layer that was unpacked can be packed");
        if !entries.iter().any(has_reserved_name) {
            let second = try_unpack(&again, &dir.path().join("second")).expect("an archive of ours");
            let third = write_tar(&second, &[dir.path().join("second")], TarOptions::default(), Vec::new());
            assert!(third.is_ok_and(|third| third == again), "packed again the layer is another");
        }
    }
    for entry in std::fs::read_dir(dir.path()).into_iter().flatten().flatten() {
        let known = ["raw", "first", "second"].iter().any(|name| entry.file_name() == *name);
        assert!(known, "`{}` was written outside of the layer", entry.path().display());
    }
}

/// Whether the layer has an object whose name says in an archive that another is gone. Such names get in as parents of
/// others, and no archive can tell them from whiteouts.
fn has_reserved_name(entry: &LayerEntry) -> bool {
    let put = matches!(entry.change, Change::Put { .. });
    put && entry.path.components().any(|name| name.starts_with(b".wh."))
}

fn try_unpack(archive: &[u8], dir: &Path) -> Option<Entries> {
    let base = Base::scratch(Arc::new(Trees::new(Arc::new(MemoryNodes::default()))));
    unpack(archive, dir, base, LIMITS).ok().map(|unpacked| unpacked.layer.entries)
}
