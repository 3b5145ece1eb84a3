//! Opening after a kill and after a power cut.

use cache::store::{CacheMountRequest, LayerAbout, Origin, Recovery, Sharing};
use solver::Digest;

use crate::support::{TestStore, add_blob, add_layer, blob_ref, image, names};

/// What a power cut does to a file whose bytes were not on disk yet.
fn tear(path: &std::path::Path) {
    let time = std::fs::metadata(path).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(0).unwrap();
    file.set_len(len).unwrap();
    file.set_modified(time).unwrap();
}

fn blob_path(test: &TestStore, digest: &Digest) -> std::path::PathBuf {
    test.root().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())
}

#[test]
fn files_without_an_entry_are_removed() {
    let test = TestStore::new();
    let orphan = Digest::of(b"orphan");
    let shard = test.root().join("blobs/sha256").join(&orphan.hex()[..2]);
    std::fs::create_dir_all(&shard).unwrap();
    std::fs::write(shard.join(orphan.hex()), "orphan").unwrap();
    std::fs::create_dir_all(test.root().join("snapshots").join(orphan.hex()).join("fs")).unwrap();
    std::fs::create_dir_all(test.root().join("cache-mounts/0-0")).unwrap();
    let test = test.reopen("boot-1");
    assert_eq!(test.store.recovery(), &Recovery { orphans: 3, ..Recovery::default() });
    assert_eq!(names(&test.root(), "snapshots"), [""; 0]);
    assert_eq!(names(&test.root(), "cache-mounts"), [""; 0]);
}

#[test]
fn what_cannot_be_read_does_not_keep_the_store_shut() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let blob = add_blob(&test.store, &lease, "b");
    let sound = add_blob(&test.store, &lease, "sound");
    drop(lease);
    // A directory opens and does not read, as a file on a damaged disk.
    std::fs::remove_file(blob_path(&test, &blob)).unwrap();
    std::fs::create_dir(blob_path(&test, &blob)).unwrap();
    std::fs::write(test.root().join("blobs/sha256/stray"), "").unwrap();
    assert_eq!(test.store.verify().unwrap().problems.len(), 1);
    let test = test.reopen("boot-2");
    let expected =
        Recovery { new_boot: true, verified: 2, dropped_blobs: 1, orphans: 2, ..Recovery::default() };
    assert_eq!(test.store.recovery(), &expected);
    assert!(test.store.blobs().size(&sound).unwrap().is_some());
    assert!(!test.root().join("blobs/sha256/stray").exists());
}

#[test]
fn a_kill_loses_nothing() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let layer = add_layer(&test.store, &lease, "a", LayerAbout::default());
    let blob = add_blob(&test.store, &lease, "b");
    drop(lease);
    let test = test.reopen("boot-1");
    assert_eq!(test.store.recovery(), &Recovery::default());
    assert!(test.store.layers().dirs(&layer).unwrap()[0].join("f").exists());
    assert!(test.store.blobs().size(&blob).unwrap().is_some());
}

#[test]
fn a_power_cut_drops_what_is_torn_and_young() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let old = add_layer(&test.store, &lease, "old", LayerAbout::default());
    test.store.checkpoint().unwrap();
    let sound = add_layer(&test.store, &lease, "sound", LayerAbout::default());
    let torn = add_layer(&test.store, &lease, "torn", LayerAbout::default());
    let config = add_blob(&test.store, &lease, "config");
    let torn_blob = add_blob(&test.store, &lease, "torn");
    let images = test.store.images();
    images.put("whole", &image(config, vec![old, sound])).unwrap();
    images.put("lost-layer", &image(config, vec![torn])).unwrap();
    images.put("lost-blob", &image(torn_blob, vec![old])).unwrap();
    tear(&test.store.layers().dirs(&torn).unwrap()[0].join("f"));
    tear(&blob_path(&test, &torn_blob));
    drop((lease, images));
    let test = test.reopen("boot-2");
    let expected = Recovery {
        new_boot: true,
        verified: 4,
        dropped_layers: 1,
        dropped_blobs: 1,
        dropped_images: vec!["lost-blob".to_owned(), "lost-layer".to_owned()],
        orphans: 1,
        ..Recovery::default()
    };
    assert_eq!(test.store.recovery(), &expected);
    assert_eq!(test.store.images().list().unwrap().len(), 1);
    assert!(test.store.layers().get(&torn).unwrap().is_none());
    assert_eq!(test.store.verify().unwrap().problems, [""; 0]);
    let test = test.reopen("boot-3");
    assert_eq!(test.store.recovery(), &Recovery { new_boot: true, ..Recovery::default() }, "verified once");
}

#[test]
fn what_a_checkpoint_covered_is_not_looked_at() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let layer = add_layer(&test.store, &lease, "a", LayerAbout::default());
    add_blob(&test.store, &lease, "b");
    test.store.checkpoint().unwrap();
    tear(&test.store.layers().dirs(&layer).unwrap()[0].join("f"));
    drop(lease);
    let test = test.reopen("boot-2");
    assert_eq!(test.store.recovery(), &Recovery { new_boot: true, ..Recovery::default() });
    assert_eq!(test.store.verify().unwrap().problems.len(), 1, "verify looks at everything");
}

#[test]
fn a_torn_layer_that_can_be_fetched_stays_known() {
    let test = TestStore::new();
    let lease = test.store.lease();
    let config = add_blob(&test.store, &lease, "config");
    test.store.checkpoint().unwrap();
    let origin = Origin { reference: "localhost/a:1".to_owned(), blob: blob_ref(Digest::of(b"gz")) };
    let about = LayerAbout { origin: Some(origin), ..LayerAbout::default() };
    let layer = add_layer(&test.store, &lease, "a", about);
    test.store.images().put("a", &image(config, vec![layer])).unwrap();
    tear(&test.store.layers().dirs(&layer).unwrap()[0].join("f"));
    drop(lease);
    let test = test.reopen("boot-2");
    assert_eq!(test.store.recovery().dropped_layers, 1);
    assert_eq!(test.store.recovery().dropped_images, [""; 0]);
    assert!(!test.store.layers().get(&layer).unwrap().unwrap().present);
}

#[tokio::test]
async fn a_cache_mount_that_was_in_use_is_dropped_after_a_power_cut() {
    let test = TestStore::new();
    let request = |id: &str| CacheMountRequest {
        id: id.to_owned(),
        sharing: Sharing::Shared,
        owner: None,
        base: None,
        step: "step".to_owned(),
        clear_for: None,
        description: String::new(),
    };
    let mounts = test.store.cache_mounts();
    drop(mounts.acquire(request("idle"), None).await.unwrap());
    let used = mounts.acquire(request("used"), None).await.unwrap();
    test.store.checkpoint().unwrap();
    // A killed process gives nothing back.
    std::mem::forget(used);
    drop(mounts);
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp").arg("-a").arg(test.root()).arg(copy.path()).status();
    assert!(status.unwrap().success());
    let same_boot = crate::support::open(copy.path(), "boot-1");
    assert_eq!(same_boot.recovery(), &Recovery::default());
    drop(same_boot);
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp").arg("-a").arg(test.root()).arg(copy.path()).status();
    assert!(status.unwrap().success());
    let other_boot = crate::support::open(copy.path(), "boot-2");
    assert_eq!(other_boot.recovery().dropped_cache_mounts, 1);
    assert_eq!(other_boot.du(&["type==exec.cachemount".to_owned()], Default::default()).unwrap().len(), 1);
}
