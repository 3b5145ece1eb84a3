//! Property: a prune of everything leaves exactly what is reachable.

use std::collections::{BTreeSet, HashSet};

use cache::store::{LayerAbout, Lease};
use proptest::prelude::*;
use solver::{Digest, LayerId};

use crate::support::{TestStore, add_blob, add_layer, blob_ref, image, prune_all};

const OBJECTS: usize = 6;

/// Something done to the store; numbers choose among [`OBJECTS`] layers and blobs.
#[derive(Debug, Clone)]
enum Step {
    Layer(usize, Vec<usize>),
    Blob(usize),
    Tag(usize, usize, Vec<usize>),
    Untag(usize),
    EndLease,
    HoldLayer(usize),
    HoldBlob(usize),
    Prune,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0..OBJECTS;
    let some = || prop::collection::vec(0..OBJECTS, 0..3);
    prop_oneof![
        3 => (n(), some()).prop_map(|(l, b)| Step::Layer(l, b)),
        2 => n().prop_map(Step::Blob),
        2 => (n(), n(), some()).prop_map(|(i, c, l)| Step::Tag(i, c, l)),
        1 => n().prop_map(Step::Untag),
        1 => Just(Step::EndLease),
        1 => n().prop_map(Step::HoldLayer),
        1 => n().prop_map(Step::HoldBlob),
        2 => Just(Step::Prune),
        1 => Just(Step::Reopen),
    ]
}

/// What ought to be there.
#[derive(Default)]
struct Model {
    layers: std::collections::HashMap<usize, HashSet<usize>>,
    blobs: HashSet<usize>,
    images: std::collections::HashMap<usize, (usize, Vec<usize>)>,
    leased_layers: HashSet<usize>,
    leased_blobs: HashSet<usize>,
}

impl Model {
    fn prune(&mut self) {
        let tagged = self.images.values().flat_map(|(_, layers)| layers.iter().copied());
        let keep: HashSet<usize> = tagged.chain(self.leased_layers.iter().copied()).collect();
        self.layers.retain(|layer, _| keep.contains(layer));
        let mut keep = self.leased_blobs.clone();
        keep.extend(self.images.values().map(|(config, _)| *config));
        keep.extend(self.layers.values().flatten().copied());
        self.blobs.retain(|blob| keep.contains(blob));
    }
}

fn layer_content(n: usize) -> String {
    format!("layer {n}")
}

fn blob_content(n: usize) -> String {
    format!("blob {n}")
}

fn blob_digest(n: usize) -> Digest {
    Digest::of(blob_content(n).as_bytes())
}

struct World {
    test: Option<TestStore>,
    lease: Option<Lease>,
    ids: Vec<LayerId>,
    model: Model,
}

impl World {
    fn new() -> Self {
        let test = TestStore::new();
        let lease = test.store.lease();
        let ids =
            (0..OBJECTS).map(|n| add_layer(&test.store, &lease, &layer_content(n), LayerAbout::default()));
        let ids = ids.collect();
        drop(lease);
        prune_all(&test.store);
        let lease = Some(test.store.lease());
        Self { test: Some(test), lease, ids, model: Model::default() }
    }

    fn apply(&mut self, step: Step) {
        let store = self.test.as_ref().unwrap().store.clone();
        let lease = self.lease.clone().unwrap();
        let model = &mut self.model;
        match step {
            Step::Layer(n, blobs) => {
                add_layer(&store, &lease, &layer_content(n), LayerAbout::default());
                model.leased_layers.insert(n);
                let known = model.layers.entry(n).or_default();
                for blob in blobs {
                    add_blob(&store, &lease, &blob_content(blob));
                    store.layers().add_blob(&self.ids[n], blob_ref(blob_digest(blob))).unwrap();
                    known.insert(blob);
                    model.blobs.insert(blob);
                    model.leased_blobs.insert(blob);
                }
            }
            Step::Blob(n) => {
                add_blob(&store, &lease, &blob_content(n));
                model.blobs.insert(n);
                model.leased_blobs.insert(n);
            }
            Step::Tag(name, config, layers) => {
                let ids = layers.iter().map(|&n| self.ids[n]).collect();
                let put = store.images().put(&name.to_string(), &image(blob_digest(config), ids));
                let whole =
                    model.blobs.contains(&config) && layers.iter().all(|n| model.layers.contains_key(n));
                assert_eq!(put.is_ok(), whole);
                if whole {
                    model.images.insert(name, (config, layers));
                }
            }
            Step::Untag(name) => {
                let known = store.images().remove(&name.to_string()).unwrap().is_some();
                assert_eq!(known, model.images.remove(&name).is_some());
            }
            Step::HoldLayer(n) => {
                let held = store.layers().hold(&lease, &self.ids[n]).unwrap().is_some();
                assert_eq!(held, model.layers.contains_key(&n));
                if held {
                    model.leased_layers.insert(n);
                }
            }
            Step::HoldBlob(n) => {
                let held = store.blobs().hold(&lease, &blob_digest(n)).unwrap().is_some();
                assert_eq!(held, model.blobs.contains(&n));
                if held {
                    model.leased_blobs.insert(n);
                }
            }
            Step::EndLease => {
                self.lease = None;
                drop(lease);
                model.leased_layers.clear();
                model.leased_blobs.clear();
                self.lease = Some(store.lease());
            }
            Step::Prune => {
                prune_all(&store);
                model.prune();
            }
            Step::Reopen => {
                self.lease = None;
                drop((lease, store));
                model.leased_layers.clear();
                model.leased_blobs.clear();
                let test = self.test.take().unwrap().reopen("boot-1");
                self.lease = Some(test.store.lease());
                self.test = Some(test);
            }
        }
    }

    fn check(&self) {
        let store = &self.test.as_ref().unwrap().store;
        for (n, id) in self.ids.iter().enumerate() {
            let there = store.layers().get(id).unwrap().is_some();
            assert_eq!(there, self.model.layers.contains_key(&n), "layer {n}");
        }
        for n in 0..OBJECTS {
            let there = store.blobs().size(&blob_digest(n)).unwrap().is_some();
            assert_eq!(there, self.model.blobs.contains(&n), "blob {n}");
        }
        let report = store.verify().unwrap();
        assert_eq!(report.problems, [""; 0]);
        let snapshots: BTreeSet<_> =
            crate::support::names(&self.test.as_ref().unwrap().root(), "snapshots").into_iter().collect();
        let expected = self.model.layers.keys().map(|&n| self.ids[n].hex()).collect();
        assert_eq!(snapshots, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_prune_leaves_what_is_reachable(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
        world.check();
        world.apply(Step::Prune);
        world.check();
    }
}
