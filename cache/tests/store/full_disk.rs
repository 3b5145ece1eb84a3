//! A full disk gives a clear error, and the store works on once there is space.

use std::path::Path;

use cache::store::{Store, StoreError, StoreOptions};
use cache::tree::{NodeId, NodeStore};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use solver::Digest;

use crate::support::add_blob;

/// A small file system of its own.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn probe(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let none: Option<&str> = None;
        match mount(none, dir.path(), Some("tmpfs"), MsFlags::empty(), Some(options)) {
            Ok(()) => Some(Self(dir)),
            Err(e) => {
                println!("skipped: probe `mount tmpfs`: {e}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

fn open(disk: &SmallDisk) -> Store {
    Store::open(&disk.path().join("root"), StoreOptions::default()).unwrap()
}

fn fill(disk: &SmallDisk) {
    let mut file = std::fs::File::create(disk.path().join("ballast")).unwrap();
    let zeros = [0; 4096];
    while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
}

#[test]
fn blobs() {
    let Some(disk) = SmallDisk::probe("size=48m") else { return };
    let store = open(&disk);
    let lease = store.lease();
    let kept = add_blob(&store, &lease, "kept");
    fill(&disk);
    let large = vec![7; 1 << 20];
    let error = store.blobs().put(&lease, &large, Default::default()).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    assert_eq!(store.blobs().read(&kept, 100).unwrap(), b"kept");
    std::fs::remove_file(disk.path().join("ballast")).unwrap();
    store.blobs().put(&lease, &large, Default::default()).unwrap();
}

#[test]
fn metadata() {
    let Some(disk) = SmallDisk::probe("size=48m") else { return };
    let store = open(&disk);
    let lease = store.lease();
    let kept = add_blob(&store, &lease, "kept");
    fill(&disk);
    let nodes = store.nodes();
    let node = |n: u32| {
        let bytes = bytes::Bytes::from(n.to_string().repeat(10_000));
        (NodeId::new(Digest::of(&bytes)), bytes)
    };
    let failed = (0..4000).find_map(|n| nodes.put(vec![node(n)]).err()).expect("the disk is full");
    let source = failed.source.downcast_ref::<StoreError>().unwrap();
    assert!(source.is_disk_full(), "{source:?}");
    assert_eq!(store.blobs().size(&kept).unwrap(), Some(4), "reading goes on");
    std::fs::remove_file(disk.path().join("ballast")).unwrap();
    nodes.put(vec![node(9999)]).unwrap();
    assert!(nodes.get(&node(9999).0).unwrap().is_some());
    drop((nodes, lease, store));
    let store = open(&disk);
    assert!(store.nodes().get(&node(9999).0).unwrap().is_some());
    assert_eq!(store.blobs().read(&kept, 100).unwrap(), b"kept");
}
