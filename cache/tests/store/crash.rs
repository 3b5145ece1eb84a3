//! A process that works on a store is killed at random moments: what it was told is done is there.
//!
//! The killed process is this test binary again, at [`worker`].

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use cache::store::{LayerAbout, Store, StoreOptions};
use solver::{Digest, Key, OutputRecord, Put, Record, RecordStore};

use crate::support::{add_blob, add_layer, blob_ref, image, prune_all};

/// Names the root for the process that is to be killed.
const ROOT: &str = "STORE_CRASH_ROOT";
/// How often it is killed.
const KILLS: u64 = 12;

fn key(n: u64) -> Key {
    Key(Digest::of(format!("key {n}").as_bytes()))
}

/// Not a test of its own: works until it is killed, and says what it has finished.
#[test]
fn worker() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let options = StoreOptions { boot_id: Some("boot-1".to_owned()), ..StoreOptions::default() };
    let store = Store::open(root.as_ref(), options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let start = store.images().list().unwrap().len() as u64 * 1000;
    let mut out = std::io::stdout();
    for n in start.. {
        let lease = store.lease();
        let layer = add_layer(&store, &lease, &format!("layer {n}"), LayerAbout::default());
        let config = add_blob(&store, &lease, &format!("config {n}"));
        let compressed = add_blob(&store, &lease, &format!("compressed {n}"));
        store.layers().add_blob(&layer, blob_ref(compressed)).unwrap();
        let output = OutputRecord { content: Digest::of(b""), layer: Some(layer) };
        let record =
            Record { outputs: BTreeMap::from([(0, output)]), created_ms: n, took_ms: 0, name: n.to_string() };
        runtime.block_on(store.records().put(key(n), &[], record, Put::IfAbsent)).unwrap();
        store.images().put(&format!("image-{n}"), &image(config, vec![layer])).unwrap();
        writeln!(out, "done {n}").unwrap();
        if n % 3 == 0 {
            // Something to prune, so that kills hit that too.
            drop(lease);
            store.images().remove(&format!("image-{n}")).unwrap();
            store.prune(&Default::default(), &Default::default(), &mut |_| {}).unwrap();
            writeln!(out, "pruned {n}").unwrap();
        }
        if n % 7 == 0 {
            store.checkpoint().unwrap();
        }
    }
}

#[test]
fn killed_at_random_moments() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // Fixed, so that a failure comes again as far as a race can.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut finished = Vec::new();
    for _ in 0..KILLS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::worker", "--nocapture", "--test-threads=1"])
            .env(ROOT, &root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || lines.lines().map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(40 + random % 400));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            if let Some(n) = line.rsplit_once("done ").and_then(|(_, n)| n.parse::<u64>().ok()) {
                finished.push(n);
            }
        }
        let store = crate::support::open(dir.path(), "boot-1");
        assert_eq!(store.recovery().dropped_layers + store.recovery().dropped_blobs, 0);
        assert_eq!(store.verify().unwrap().problems, [""; 0]);
        for &n in &finished {
            let found = runtime.block_on(store.records().lookup(&[key(n)])).unwrap();
            assert!(found[0].is_some(), "record {n}");
            let image = store.images().get(&format!("image-{n}")).unwrap();
            assert!(n % 3 == 0 || image.is_some(), "image {n}");
        }
    }
    assert!(!finished.is_empty(), "no run got anywhere");
    let store = crate::support::open(dir.path(), "boot-1");
    for (name, _) in store.images().list().unwrap() {
        store.images().remove(&name).unwrap();
    }
    prune_all(&store);
    assert_eq!(store.du(&[], Duration::ZERO).unwrap(), []);
    let blobs: Vec<_> = walkdir::WalkDir::new(root.join("blobs")).into_iter().map(Result::unwrap).collect();
    assert!(blobs.iter().all(|entry| entry.file_type().is_dir()), "files leaked: {blobs:?}");
}
