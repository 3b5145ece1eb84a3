//! A layer's tar: unpacked it stays in its directory; packed and unpacked again it is the same layer.

use std::path::Path;
use std::sync::Arc;

use cache::layer::{Base, Entries, TarOptions, UnpackLimits, unpack, write_tar};
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
        let second = try_unpack(&again, &dir.path().join("second")).expect("an archive of ours");
        let third = write_tar(&second, &[dir.path().join("second")], TarOptions::default(), Vec::new());
        assert!(third.is_ok_and(|third| third == again), "packed again the layer is another");
    }
    for entry in std::fs::read_dir(dir.path()).into_iter().flatten().flatten() {
        let known = ["raw", "first", "second"].iter().any(|name| entry.file_name() == *name);
        assert!(known, "`{}` was written outside of the layer", entry.path().display());
    }
}

fn try_unpack(archive: &[u8], dir: &Path) -> Option<Entries> {
    let base = Base::scratch(Arc::new(Trees::new(Arc::new(MemoryNodes::default()))));
    unpack(archive, dir, base, LIMITS).ok().map(|unpacked| unpacked.layer.entries)
}
