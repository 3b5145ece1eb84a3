//! A store in a temporary directory, and things to put into it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use cache::layer::{Change, CommittedLayer, Entries, LayerEntry};
use cache::store::{BlobRef, ImageRecord, LayerAbout, Lease, PrunePolicy, Store, StoreOptions};
use cache::tree::{FileDigest, Kind, Node, NodeId, TreePath};
use solver::{Digest, LayerId};
use tokio_util::sync::CancellationToken;

/// A store and the directory it lies in.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) dir: tempfile::TempDir,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), "boot-1");
        Self { store, dir }
    }

    /// Closes the store and opens it again, as after a kill if `boot` is the same.
    pub(crate) fn reopen(self, boot: &str) -> Self {
        let Self { store, dir } = self;
        drop(store);
        let store = open(dir.path(), boot);
        Self { store, dir }
    }

    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }
}

pub(crate) fn open(dir: &Path, boot: &str) -> Store {
    let options = StoreOptions { boot_id: Some(boot.to_owned()), now };
    Store::open(&dir.join("root"), options).unwrap()
}

/// Minutes that tests let pass; nextest runs each test in a process of its own, and others only see time pass.
static MINUTES: AtomicU64 = AtomicU64::new(0);

fn now() -> SystemTime {
    SystemTime::now() + Duration::from_mins(MINUTES.load(Ordering::Relaxed))
}

pub(crate) fn pass_minutes(minutes: u64) {
    MINUTES.fetch_add(minutes, Ordering::Relaxed);
}

/// Stores a layer with one file `f` of the given content.
pub(crate) fn add_layer(store: &Store, lease: &Lease, content: &str, about: LayerAbout) -> LayerId {
    let staging = store.layers().staging().unwrap();
    let (layer, fs) = stage(&staging, content);
    store.layers().insert(lease, &layer, about, &fs).unwrap();
    layer.id
}

/// Makes such a layer without storing it.
pub(crate) fn stage(staging: &cache::store::Staging, content: &str) -> (CommittedLayer, std::path::PathBuf) {
    let fs = staging.create_dir("fs").unwrap();
    let file = fs.join("f");
    std::fs::write(&file, content).unwrap();
    // A fixed time, or the same content would give another layer each time.
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    let meta = std::fs::metadata(&file).unwrap();
    let node = Node {
        kind: Kind::File { size: meta.len(), content: FileDigest::of(content.as_bytes()) },
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        ..Node::plain_dir()
    };
    let mtime = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    let path = TreePath::parse(b"f").unwrap();
    let entries = Entries::new(vec![LayerEntry { path, change: Change::Put { node, mtime } }]);
    let id = entries.layer_id();
    let root = NodeId::new(Digest::of(content.as_bytes()));
    (CommittedLayer { id, entries, root, disk_bytes: 4096, backing: None }, fs)
}

/// Stores a blob.
pub(crate) fn add_blob(store: &Store, lease: &Lease, content: &str) -> Digest {
    store.blobs().put(lease, content.as_bytes(), Default::default()).unwrap()
}

pub(crate) fn blob_ref(digest: Digest) -> BlobRef {
    BlobRef { digest, size: 0, media_type: "application/octet-stream".to_owned() }
}

/// An image of these layers whose manifest and config are the same blob.
pub(crate) fn image(config: Digest, layers: Vec<LayerId>) -> ImageRecord {
    ImageRecord {
        target: blob_ref(config),
        manifest: config,
        config,
        diff_ids: layers.iter().map(|id| id.0).collect(),
        layers,
        blobs: Vec::new(),
        platform: "linux/amd64".to_owned(),
        created_ms: 0,
        tagged_ms: 0,
        size: 0,
    }
}

/// Removes everything that may go.
pub(crate) fn prune_all(store: &Store) -> cache::store::Pruned {
    let everything = PrunePolicy { all: true, ..PrunePolicy::default() };
    store.prune(&everything, &CancellationToken::new(), &mut |_| {}).unwrap()
}

/// Names in a directory of the root.
pub(crate) fn names(root: &Path, dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root.join(dir)).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
