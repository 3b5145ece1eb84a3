//! Images, named leases and history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cache::store::{
    BlobRef, BuildBlob, BuildRecord, BuildStatement, BuildStatus, Held, HistoryLimits, LayerAbout,
    StepCounts, StoreError,
};
use solver::{Digest, LayerId};

use crate::support::{TestStore, add_blob, add_layer, image, pass_minutes, prune_all};

#[test]
fn names() {
    let test = TestStore::new();
    let (store, lease) = (&test.store, test.store.lease());
    let config = add_blob(store, &lease, "config");
    let layer = add_layer(store, &lease, "a", LayerAbout::default());
    store.images().put("docker.io/library/a:1", &image(config, vec![layer])).unwrap();
    assert!(store.images().tag("docker.io/library/a:1", "docker.io/library/b:2").unwrap());
    assert!(!store.images().tag("docker.io/library/none:1", "docker.io/library/c:1").unwrap());
    let listed: Vec<_> = store.images().list().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(listed, ["docker.io/library/a:1", "docker.io/library/b:2"]);
    drop(lease);
    assert!(store.images().remove("docker.io/library/a:1").unwrap().is_some());
    assert!(store.images().remove("docker.io/library/a:1").unwrap().is_none());
    assert_eq!(prune_all(store).items, 0, "the other name still needs it");
    store.images().remove("docker.io/library/b:2").unwrap();
    assert_eq!(prune_all(store).items, 2);
}

#[test]
fn an_image_names_only_what_is_there() {
    let test = TestStore::new();
    let (store, lease) = (&test.store, test.store.lease());
    let config = add_blob(store, &lease, "config");
    let missing = LayerId(Digest::of(b"none"));
    let error = store.images().put("a", &image(config, vec![missing])).unwrap_err();
    assert!(matches!(error, StoreError::LayerMissing(_)));
    let error = store.images().put("a", &image(Digest::of(b"none"), vec![])).unwrap_err();
    assert!(matches!(error, StoreError::BlobMissing(_)));
    assert_eq!(store.images().get("a").unwrap(), None);
}

#[test]
fn named_leases_outlive_the_process() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let layer = add_layer(&test.store, &lease, "a", LayerAbout::default());
    let blob = add_blob(&test.store, &lease, "b");
    let held = Held { layers: BTreeSet::from([layer]), blobs: BTreeSet::from([blob]) };
    test.store.hold("container-1", &held).unwrap();
    test.store.hold("container-1", &held).unwrap();
    drop(lease);
    let test = test.reopen("boot-1");
    assert_eq!(test.store.named_leases().unwrap(), ["container-1"]);
    assert_eq!(prune_all(&test.store).items, 0);
    assert!(test.store.release("container-1").unwrap());
    assert!(!test.store.release("container-1").unwrap());
    assert_eq!(prune_all(&test.store).items, 2);
    assert!(matches!(test.store.hold("container-2", &held), Err(StoreError::LayerMissing(_))));
}

#[test]
fn history_keeps_logs_and_is_trimmed() {
    let test = TestStore::new();
    let (store, lease) = (&test.store, test.store.lease());
    let started_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    for n in 0..4 {
        let build = BuildRecord {
            reference: format!("build-{n}"),
            started_ms: started_ms + n,
            finished_ms: None,
            status: if n == 0 { BuildStatus::Running } else { BuildStatus::Done },
            frontend: "dockerfile.v0".to_owned(),
            attrs: BTreeMap::new(),
            destinations: Vec::new(),
            response: BTreeMap::new(),
            steps: StepCounts::default(),
            log: Some(add_blob(store, &lease, &format!("log {n}"))),
            error: Some(BuildBlob { blob: add_blob(store, &lease, &format!("error {n}")), size: 7 }),
            trace: Some(BuildBlob { blob: add_blob(store, &lease, &format!("trace {n}")), size: 7 }),
            statements: vec![BuildStatement {
                platform: None,
                predicate_type: "x".to_owned(),
                predicate: add_blob(store, &lease, &format!("statement {n}")),
                size: 11,
            }],
            results: BTreeMap::from([(
                1,
                BlobRef {
                    digest: add_blob(store, &lease, &format!("manifest {n}")),
                    size: 10,
                    media_type: "m".to_owned(),
                },
            )]),
            listed: Vec::new(),
            pinned: n == 1,
        };
        store.history().put(&build).unwrap();
    }
    drop(lease);
    assert_eq!(prune_all(store).items, 0);
    let limits = HistoryLimits { max_entries: 2, ..HistoryLimits::default() };
    assert_eq!(store.history().trim(limits).unwrap(), 0, "all are young");
    pass_minutes(3 * 24 * 60);
    assert_eq!(store.history().trim(limits).unwrap(), 2);
    let left: Vec<_> = store.history().list().unwrap().into_iter().map(|b| b.reference).collect();
    assert_eq!(left, ["build-0", "build-1"]);
    assert_eq!(store.blobs().size(&Digest::of(b"log 2")).unwrap(), None, "its log went along");
    assert_eq!(store.blobs().size(&Digest::of(b"statement 2")).unwrap(), None, "and its statement");
    assert_eq!(store.blobs().size(&Digest::of(b"error 2")).unwrap(), None, "and its error");
    assert_eq!(store.blobs().size(&Digest::of(b"trace 2")).unwrap(), None, "and its spans");
    assert_eq!(store.blobs().size(&Digest::of(b"manifest 2")).unwrap(), None, "and what it made");
    assert_eq!(prune_all(store).items, 0);
    assert!(store.du(&[], Duration::ZERO).unwrap().is_empty(), "logs are no cache");
    // Logs are bounded together: the oldest go, but for pinned builds'.
    let limits = HistoryLimits { max_log_bytes: 0, ..limits };
    assert_eq!(store.history().trim(limits).unwrap(), 0);
    let logs: Vec<_> = store.history().list().unwrap().into_iter().map(|b| b.log.is_some()).collect();
    assert_eq!(logs, [true, true], "one runs, one is pinned");
    let kinds = ["log", "error", "trace", "statement", "manifest"];
    let needed = [0, 1].into_iter().flat_map(|n| kinds.map(|kind| format!("{kind} {n}")));
    let needed = needed.map(|text| Digest::of(text.as_bytes()));
    assert_eq!(store.history().blobs().unwrap(), needed.collect());
    let mut build = store.history().get("build-1").unwrap().unwrap();
    build.pinned = false;
    store.history().put(&build).unwrap();
    assert_eq!(store.history().trim(limits).unwrap(), 0);
    assert_eq!(store.history().get("build-1").unwrap().unwrap().log, None);
    assert_eq!(store.blobs().size(&Digest::of(b"log 1")).unwrap(), None);
    assert!(store.history().remove("build-0").unwrap());
    assert!(!store.history().remove("build-0").unwrap());
    assert_eq!(store.blobs().size(&Digest::of(b"log 0")).unwrap(), None);
    assert_eq!(store.blobs().size(&Digest::of(b"statement 0")).unwrap(), None);
    assert!(store.blobs().size(&Digest::of(b"statement 1")).unwrap().is_some(), "only its log went");
}

#[test]
fn a_log_that_something_else_needs_outlives_its_build() {
    let test = TestStore::new();
    let (store, lease) = (&test.store, test.store.lease());
    let log = add_blob(store, &lease, "log");
    for reference in ["a", "b"] {
        let build = BuildRecord {
            reference: reference.to_owned(),
            started_ms: 0,
            finished_ms: Some(1),
            status: BuildStatus::Done,
            frontend: String::new(),
            attrs: BTreeMap::new(),
            destinations: Vec::new(),
            response: BTreeMap::new(),
            steps: StepCounts::default(),
            log: Some(log),
            error: None,
            trace: None,
            statements: Vec::new(),
            results: BTreeMap::new(),
            listed: Vec::new(),
            pinned: false,
        };
        store.history().put(&build).unwrap();
    }
    assert!(store.history().remove("a").unwrap());
    assert!(store.blobs().size(&log).unwrap().is_some(), "`b` names it, too");
    assert!(store.history().remove("b").unwrap());
    assert!(store.blobs().size(&log).unwrap().is_some(), "a build holds it");
    drop(lease);
    assert_eq!(prune_all(store).items, 1);
}
