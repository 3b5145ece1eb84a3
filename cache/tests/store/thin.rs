//! Layers that are thin over others: what becomes of them when one of the two goes.

use std::sync::Arc;
use std::time::Duration;

use cache::layer::{Base, LayerBuilder, Meta, RunWindow};
use cache::store::{LayerAbout, Lease, Recovery, Store, StoreError};
use cache::tree::{FileDigest, MemoryNodes, TreePath, Trees};
use solver::{Digest, LayerId};

use crate::support::{TestStore, names, open, prune_all};

/// Enough files to be worth it.
const FILES: usize = 600;

fn step() -> Digest {
    Digest::of(b"COPY . .")
}

/// Stores what the step gives when the first file has this text.
fn copy(store: &Store, lease: &Lease, text: &str) -> LayerId {
    let staging = store.layers().staging().unwrap();
    let dir = staging.path().join("fs");
    let trees = Arc::new(Trees::new(Arc::new(MemoryNodes::default())));
    let backing = store.layers().backing_for(lease, &step()).unwrap();
    let builder = LayerBuilder::create(&dir, Base::scratch(trees)).unwrap().thin_over(backing);
    let meta = Meta { mode: 0o644, mtime: 1, ..Meta::default() };
    for n in 0..FILES {
        let path = TreePath::parse(format!("f{n}").as_bytes()).unwrap();
        let text = if n == 0 { text.as_bytes() } else { b"same" };
        if !builder.take_from_backing(&path, &meta, text.len() as u64, FileDigest::of(text)).unwrap() {
            builder.write_file(&path, &meta, text).unwrap();
        }
    }
    let layer = builder.finish(RunWindow::none()).unwrap();
    store.layers().insert(lease, &layer, LayerAbout::default(), &dir).unwrap();
    store.layers().note_last(&step(), &layer.id).unwrap();
    layer.id
}

fn backing(store: &Store, id: &LayerId) -> Option<LayerId> {
    store.layers().get(id).unwrap().unwrap().backing
}

#[test]
fn the_next_is_thin_over_the_first() {
    let test = TestStore::new();
    let (layers, lease) = (test.store.layers(), test.store.lease());
    let first = copy(&test.store, &lease, "1");
    let second = copy(&test.store, &lease, "2");
    let third = copy(&test.store, &lease, "3");
    assert_eq!(backing(&test.store, &first), None);
    // Never in rows: mounts stay as deep as they are.
    assert_eq!((backing(&test.store, &second), backing(&test.store, &third)), (Some(first), Some(first)));
    assert_eq!(layers.entries(&third).unwrap().len(), FILES);
    let dirs = layers.dirs(&third).unwrap();
    assert_eq!(dirs.len(), 2);
    assert_eq!(dirs[0], layers.dirs(&first).unwrap()[0]);
    assert_eq!(std::fs::read_dir(&dirs[1]).unwrap().count(), 1);
    assert!(layers.get(&third).unwrap().unwrap().size < 64 << 10);
    assert_eq!(test.store.verify().unwrap().problems, [""; 0]);
}

#[test]
fn a_prune_takes_a_backing_last() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let first = copy(&test.store, &lease, "1");
    drop(lease);
    let lease = test.store.lease();
    let second = copy(&test.store, &lease, "2");
    drop(lease);
    let lease = test.store.lease();
    assert!(test.store.layers().hold_present(&lease, &second).unwrap());
    let in_use = |id: &LayerId| {
        let all = test.store.du(&[], Duration::ZERO).unwrap();
        all.iter().find(|record| record.id == id.hex()).unwrap().in_use
    };
    assert!(in_use(&first) && in_use(&second));
    assert_eq!(prune_all(&test.store).items, 0, "a thin layer in use keeps what it is thin over");
    drop(lease);
    assert_eq!(prune_all(&test.store).items, 2);
    assert_eq!(names(&test.root(), "snapshots"), [""; 0]);
    assert!(test.store.layers().backing_for(&test.store.lease(), &step()).unwrap().is_none());
}

#[test]
fn a_damaged_backing_takes_the_thin_along() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let (first, second) = (copy(&test.store, &lease, "1"), copy(&test.store, &lease, "2"));
    test.store.layers().discard(&first).unwrap();
    for id in [first, second] {
        assert!(matches!(test.store.layers().dirs(&id), Err(StoreError::LayerMissing(_))));
    }
    assert_eq!(names(&test.root(), "snapshots"), [""; 0]);
    assert_eq!(backing(&test.store, &copy(&test.store, &lease, "3")), None, "it is copied in full again");
}

#[test]
fn verification_looks_through_to_the_backing() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let (first, second) = (copy(&test.store, &lease, "1"), copy(&test.store, &lease, "2"));
    let own = test.store.layers().dirs(&second).unwrap().remove(1);
    std::fs::remove_file(own.join("f0")).unwrap();
    assert_eq!(test.store.verify().unwrap().problems, [format!("`{second}` is damaged: `/f0` is missing")]);
    std::fs::remove_file(test.root().join("snapshots").join(first.hex()).join("entries")).unwrap();
    assert_eq!(test.store.verify().unwrap().problems.len(), 2);
}

#[test]
fn a_lost_backing_is_found_at_the_start() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let (first, _) = (copy(&test.store, &lease, "1"), copy(&test.store, &lease, "2"));
    drop(lease);
    let TestStore { store, dir } = test;
    drop(store);
    std::fs::remove_dir_all(dir.path().join("root/snapshots").join(first.hex())).unwrap();
    let store = open(dir.path(), "boot-1");
    assert_eq!(store.recovery(), &Recovery { dropped_layers: 1, ..Recovery::default() });
    assert_eq!(store.du(&[], Duration::ZERO).unwrap(), []);
    assert_eq!(names(&dir.path().join("root"), "snapshots"), [""; 0]);
}
