//! Pruning by policy.

use std::time::Duration;

use cache::store::{LayerAbout, PrunePolicy, StoreError, UsageKind};
use cache::tree::{NodeId, NodeStore};
use solver::{Digest, LayerId};
use tokio_util::sync::CancellationToken;

use crate::support::{TestStore, add_blob, add_layer, blob_ref, image, names, pass_minutes, prune_all};

fn about(kind: UsageKind) -> LayerAbout {
    LayerAbout { kind, description: "step".to_owned(), ..LayerAbout::default() }
}

fn prune(test: &TestStore, policy: &PrunePolicy) -> Vec<String> {
    let mut removed = Vec::new();
    let token = CancellationToken::new();
    test.store.prune(policy, &token, &mut |record| removed.push(record.id.clone())).unwrap();
    removed.sort();
    removed
}

fn sorted(ids: &[LayerId]) -> Vec<String> {
    let mut ids: Vec<_> = ids.iter().map(LayerId::hex).collect();
    ids.sort();
    ids
}

#[test]
fn leases_protect() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let id = add_layer(&test.store, &lease, "a", LayerAbout::default());
    let clone = lease.clone();
    drop(lease);
    assert_eq!(prune_all(&test.store).items, 0);
    drop(clone);
    let pruned = prune_all(&test.store);
    assert_eq!((pruned.items, pruned.bytes), (1, 4096));
    assert!(test.store.layers().get(&id).unwrap().is_none());
    assert_eq!(names(&test.root(), "snapshots"), [""; 0]);
    assert_eq!(names(&test.root(), "tmp"), [""; 0]);
    assert_eq!(prune_all(&test.store), Default::default());
}

#[test]
fn a_layer_takes_its_blobs_along() {
    let test = TestStore::new();
    let (store, lease) = (&test.store, test.store.lease());
    let (first, second) = (
        add_layer(store, &lease, "1", LayerAbout::default()),
        add_layer(store, &lease, "2", LayerAbout::default()),
    );
    let (own, common) = (add_blob(store, &lease, "own"), add_blob(store, &lease, "common"));
    store.layers().add_blob(&first, blob_ref(own)).unwrap();
    store.layers().add_blob(&first, blob_ref(common)).unwrap();
    store.layers().add_blob(&second, blob_ref(common)).unwrap();
    drop(lease);
    let total: u64 = store.du(&[], Duration::ZERO).unwrap().iter().map(|r| r.size).sum();
    assert_eq!(total, 2 * 4096 + 3 + 6, "each byte counts once");
    let lease = store.lease();
    store.layers().hold(&lease, &second).unwrap();
    assert_eq!(prune(&test, &PrunePolicy::default()), sorted(&[first]));
    assert_eq!(store.blobs().size(&own).unwrap(), None);
    assert_eq!(store.blobs().size(&common).unwrap(), Some(6));
    assert_eq!(store.verify().unwrap().problems, [""; 0]);
}

#[test]
fn filters_age_and_internal_things() {
    let test = TestStore::new();
    let (store, lease) = (&test.store, test.store.lease());
    let old = add_layer(store, &lease, "old", about(UsageKind::Regular));
    let source = add_layer(store, &lease, "source", about(UsageKind::LocalSource));
    let frontend = add_layer(store, &lease, "frontend", about(UsageKind::Frontend));
    pass_minutes(60);
    let young = add_layer(store, &lease, "young", about(UsageKind::Regular));
    drop(lease);
    let policy = |filters: &[&str], minutes| PrunePolicy {
        filters: filters.iter().map(|&f| f.to_owned()).collect(),
        keep_duration: Duration::from_mins(minutes),
        ..PrunePolicy::default()
    };
    assert_eq!(prune(&test, &policy(&["type==source.local"], 0)), sorted(&[source]));
    assert_eq!(prune(&test, &policy(&[], 30)), sorted(&[old]));
    assert_eq!(prune(&test, &policy(&[], 0)), sorted(&[young]));
    assert_eq!(prune(&test, &PrunePolicy { all: true, ..policy(&[], 0) }), sorted(&[frontend]));
    let error = store.prune(&policy(&["color"], 0), &CancellationToken::new(), &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "invalid filter `color`: unknown field");
}

#[test]
fn down_to_a_bound_the_least_used_first() {
    let test = TestStore::new();
    let (store, lease) = (&test.store, test.store.lease());
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(add_layer(store, &lease, &n.to_string(), LayerAbout::default()));
        pass_minutes(1);
    }
    drop(lease);
    store.layers().touch(&[ids[0]]).unwrap();
    let policy = PrunePolicy { max_used_space: 3 * 4096, ..PrunePolicy::default() };
    assert_eq!(prune(&test, &policy), sorted(&[ids[1], ids[2]]));
    assert_eq!(prune(&test, &policy), [""; 0]);
    let policy = PrunePolicy { max_used_space: 1, reserved_space: 2 * 4096, ..PrunePolicy::default() };
    assert_eq!(prune(&test, &policy).len(), 1);
}

#[test]
fn an_interrupted_prune_leaves_order() {
    let test = TestStore::new();
    let lease = test.store.lease();
    for n in 0..100 {
        add_layer(&test.store, &lease, &n.to_string(), LayerAbout::default());
    }
    drop(lease);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let mut seen = 0;
    let policy = PrunePolicy { all: true, ..PrunePolicy::default() };
    let result = test.store.prune(&policy, &cancel, &mut |_| {
        seen += 1;
        stop.cancel();
    });
    assert!(matches!(result, Err(StoreError::Interrupted(_))));
    assert!(seen > 0 && seen < 100, "{seen}");
    let left = test.store.du(&[], Duration::ZERO).unwrap().len();
    assert_eq!(left + seen, 100);
    assert_eq!(names(&test.root(), "snapshots").len(), left);
    assert_eq!(test.store.verify().unwrap().problems, [""; 0]);
}

#[test]
fn a_full_prune_forgets_trees_unless_a_build_runs() {
    let test = TestStore::new();
    let bytes = bytes::Bytes::from_static(b"node");
    let id = NodeId::new(Digest::of(&bytes));
    test.store.nodes().put(vec![(id, bytes)]).unwrap();
    test.store.set_content(&Digest::of(b"image"), &id).unwrap();
    let build = test.store.lease();
    prune_all(&test.store);
    assert_eq!(test.store.content(&Digest::of(b"image")).unwrap(), None);
    assert!(test.store.nodes().get(&id).unwrap().is_some(), "the build may need it");
    drop(build);
    prune_all(&test.store);
    assert!(test.store.nodes().get(&id).unwrap().is_none());
}

#[test]
fn images_are_shared_and_stay() {
    let test = TestStore::new();
    let (store, lease) = (&test.store, test.store.lease());
    let config = add_blob(store, &lease, "config");
    let base = add_layer(store, &lease, "base", LayerAbout::default());
    let spare = add_layer(store, &lease, "spare", LayerAbout::default());
    store.images().put("a", &image(config, vec![base])).unwrap();
    drop(lease);
    let shared = store.du(&["shared".to_owned()], Duration::ZERO).unwrap();
    assert_eq!(shared.len(), 2);
    assert_eq!(prune(&test, &PrunePolicy { all: true, ..PrunePolicy::default() }), sorted(&[spare]));
}
