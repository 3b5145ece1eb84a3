//! Layers.

use std::time::Duration;

use cache::store::{LayerAbout, Origin, StoreError};
use solver::{Digest, LayerId};

use crate::support::{TestStore, add_blob, add_layer, blob_ref, names, stage};

#[test]
fn insert_and_find_again() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let about = LayerAbout { description: "RUN make".to_owned(), ..LayerAbout::default() };
    let id = add_layer(&test.store, &lease, "a", about);
    test.store.layers().add_form(&id, &Digest::of(b"tar"), blob_ref(Digest::of(b"gz"))).unwrap();
    test.store.layers().add_blob(&id, blob_ref(Digest::of(b"gz"))).unwrap();
    drop(lease);
    let test = test.reopen("boot-1");
    assert_eq!(test.store.recovery(), &Default::default());
    let info = test.store.layers().get(&id).unwrap().unwrap();
    assert!(info.present);
    assert_eq!((info.size, info.entries, info.blobs.len()), (4096, 1, 1));
    assert_eq!(info.diff_id, Some(Digest::of(b"tar")));
    assert_eq!(info.description, "RUN make");
    let dir = &test.store.layers().dirs(&id).unwrap()[0];
    assert_eq!(std::fs::read_to_string(dir.join("f")).unwrap(), "a");
    assert_eq!(test.store.layers().entries(&id).unwrap().layer_id(), id);
    assert_eq!(test.store.verify().unwrap().problems, [""; 0]);
}

#[test]
fn the_first_of_two_equal_ones_stays() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let id = add_layer(&test.store, &lease, "a", LayerAbout::default());
    let staging = test.store.layers().staging().unwrap();
    let (layer, fs) = stage(&staging, "a");
    test.store.layers().insert(&lease, &layer, LayerAbout::default(), &fs).unwrap();
    drop(staging);
    assert_eq!(names(&test.root(), "snapshots"), [id.hex()]);
    assert_eq!(names(&test.root(), "tmp"), [""; 0]);
}

#[test]
fn a_declared_layer_keeps_its_origin_when_it_is_unpacked() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let staging = test.store.layers().staging().unwrap();
    let (layer, fs) = stage(&staging, "a");
    let blob = blob_ref(Digest::of(b"gz"));
    let origin = Origin { reference: "docker.io/library/debian:12".to_owned(), blob };
    let about = LayerAbout { origin: Some(origin.clone()), ..LayerAbout::default() };
    test.store.layers().declare(&lease, &layer.id, about).unwrap();
    assert!(matches!(test.store.layers().dirs(&layer.id), Err(StoreError::LayerMissing(_))));
    let info = test.store.layers().insert(&lease, &layer, LayerAbout::default(), &fs).unwrap();
    assert!(info.present);
    assert_eq!(info.origin, Some(origin));
    // Damage takes the content away and leaves what is needed to fetch it again.
    test.store.layers().discard(&layer.id).unwrap();
    let info = test.store.layers().get(&layer.id).unwrap().unwrap();
    assert!(!info.present);
    assert_eq!(names(&test.root(), "snapshots"), [""; 0]);
}

#[test]
fn a_lease_counts_one_use() {
    let test = TestStore::new();
    let (store, lease) = (&test.store, test.store.lease());
    let layer = add_layer(store, &lease, "a", LayerAbout::default());
    let blob = add_blob(store, &lease, "b");
    let uses = || store.du(&[], Duration::ZERO).unwrap().iter().map(|r| r.usage_count).collect::<Vec<_>>();
    assert_eq!(uses(), [0, 0]);
    for count in 1..3 {
        let lease = store.lease();
        for _ in 0..3 {
            assert!(store.layers().hold(&lease, &layer).unwrap().is_some());
            assert!(store.layers().hold_present(&lease, &layer).unwrap());
            assert_eq!(store.blobs().hold(&lease, &blob).unwrap(), Some(1));
        }
        assert_eq!(uses(), [count, count]);
    }
}

#[test]
fn what_is_not_known() {
    let test = TestStore::new();
    let (layers, id) = (test.store.layers(), LayerId(Digest::of(b"none")));
    assert!(layers.hold(&test.store.lease(), &id).unwrap().is_none());
    assert!(matches!(layers.dirs(&id), Err(StoreError::LayerMissing(_))));
    assert!(matches!(layers.add_form(&id, &id.0, blob_ref(id.0)), Err(StoreError::LayerMissing(_))));
    layers.discard(&id).unwrap();
    layers.touch(&[id]).unwrap();
    assert!(layers.get(&id).unwrap().is_none());
}

#[test]
fn verify_names_what_differs() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let id = add_layer(&test.store, &lease, "a", LayerAbout::default());
    let dir = &test.store.layers().dirs(&id).unwrap()[0];
    std::fs::write(dir.join("added"), "").unwrap();
    assert_eq!(test.store.verify().unwrap().problems, [format!("`{id}` is damaged: `added` was added")]);
    std::fs::remove_file(dir.join("added")).unwrap();
    std::fs::write(dir.join("f"), "b").unwrap();
    let problems = test.store.verify().unwrap().problems;
    assert_eq!(problems, [format!("`{id}` is damaged: `f` has another modification time")]);
    std::fs::remove_file(dir.join("f")).unwrap();
    assert_eq!(test.store.verify().unwrap().problems, [format!("`{id}` is damaged: `/f` is missing")]);
    std::fs::write(dir.join("../entries"), "").unwrap();
    assert!(matches!(test.store.layers().entries(&id), Err(StoreError::LayerDamaged { .. })));
}
