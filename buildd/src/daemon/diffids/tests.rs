//! The queue by hand, and the thread over a store of its own.

use std::time::SystemTime;

use cache::layer::{Base, LayerBuilder, Meta, RunWindow};
use cache::store::{LayerAbout, LayerInfo, Lease, StoreOptions};
use cache::tree::{TreePath, Trees};

use super::*;

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    lease: Lease,
    ids: Arc<DiffIds>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("root"), StoreOptions::default()).unwrap();
        let (lease, ids) = (store.lease(), Arc::new(DiffIds::new(store.clone())));
        Self { _dir: dir, store, lease, ids }
    }

    /// One whose thread is the test itself.
    fn by_hand() -> Self {
        let world = Self::new();
        world.ids.queue.lock().serving = true;
        world
    }

    /// A layer with one file.
    fn layer(&self, data: &[u8]) -> LayerId {
        let staging = self.store.layers().staging().unwrap();
        let dir = staging.path().join("fs");
        let trees = Arc::new(Trees::new(Arc::new(self.store.nodes())));
        let builder = LayerBuilder::create(&dir, Base::scratch(trees)).unwrap();
        let meta = Meta { mode: 0o644, ..Meta::default() };
        builder.write_file(&TreePath::parse(b"f").unwrap(), &meta, data).unwrap();
        let layer = builder.finish(RunWindow::new(SystemTime::now(), SystemTime::now())).unwrap();
        self.store.layers().insert(&self.lease, &layer, LayerAbout::default(), &dir).unwrap();
        layer.id
    }

    fn info(&self, layer: &LayerId) -> LayerInfo {
        self.store.layers().get(layer).unwrap().unwrap()
    }

    fn waiting(&self) -> Vec<LayerId> {
        self.ids.queue.lock().waiting.iter().map(|w| w.layer).collect()
    }
}

#[tokio::test]
async fn hashes_what_an_expected_build_makes() {
    let w = World::new();
    let (one, two, other) = (w.layer(b"1"), w.layer(b"2"), w.layer(b"3"));
    let expected = w.ids.expect("b");
    w.ids.made("b", [one, two].into_iter());
    w.ids.made("another", [other].into_iter());
    // Begun or not: afterwards nobody works on it.
    for id in [&one, &two] {
        while w.waiting().contains(id) {
            tokio::task::yield_now().await;
        }
        w.ids.settled(id).await;
        let info = w.info(id);
        let plain = plain_tar(&w.store, *id, &AtomicBool::new(false)).unwrap();
        assert_eq!((info.diff_id, info.blobs), (Some(plain.digest), vec![plain]));
    }
    assert_eq!(w.info(&other).diff_id, None);
    drop(expected);
    w.ids.made("b", [other].into_iter());
    assert_eq!(w.waiting(), [], "the build is over");
    w.ids.close();
    assert!(!w.ids.queue.lock().serving);
    let _expected = w.ids.expect("b");
    w.ids.made("b", [other].into_iter());
    assert_eq!(w.waiting(), [], "the daemon is leaving");
}

#[tokio::test]
async fn who_needs_one_waits_for_the_running_and_takes_the_waiting() {
    let w = World::by_hand();
    let (one, two) = (w.layer(b"1"), w.layer(b"2"));
    let _expected = w.ids.expect("b");
    w.ids.made("b", [one, two].into_iter());
    let (layer, stop) = w.ids.queue.next().unwrap();
    assert_eq!(layer, one);
    w.ids.settled(&two).await;
    assert_eq!(w.waiting(), [], "taken by who needs it");
    let ids = w.ids.clone();
    let waits = tokio::spawn(async move { ids.settled(&one).await });
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    assert!(!stop.load(Ordering::Relaxed));
    hash(&w.store, one, &stop).unwrap();
    w.ids.queue.lock().end();
    waits.await.unwrap();
    assert!(w.info(&one).diff_id.is_some());
    assert_eq!(w.info(&two).diff_id, None);
}

#[tokio::test]
async fn what_nobody_wants_is_dropped_half_done() {
    let w = World::by_hand();
    let (one, two, three) = (w.layer(b"1"), w.layer(b"2"), w.layer(b"3"));
    let (expected, _other) = (w.ids.expect("b"), w.ids.expect("other"));
    w.ids.made("b", [one, two].into_iter());
    w.ids.made("other", [three].into_iter());
    let (_, stop) = w.ids.queue.next().unwrap();
    w.ids.forgo(&two);
    assert_eq!(w.waiting(), [three]);
    assert!(!stop.load(Ordering::Relaxed));
    drop(expected);
    assert!(stop.load(Ordering::Relaxed), "the build is over");
    assert!(hash(&w.store, one, &stop).is_err());
    assert_eq!((w.info(&one).diff_id, w.info(&one).blobs), (None, vec![]));
    // Whoever waited for it goes on.
    let ids = w.ids.clone();
    let waits = tokio::spawn(async move { ids.settled(&one).await });
    tokio::task::yield_now().await;
    w.ids.queue.lock().end();
    waits.await.unwrap();
    assert_eq!(w.waiting(), [three], "another build's stay");
}

#[tokio::test]
async fn a_layer_that_is_gone_is_left_out() {
    let w = World::new();
    let (gone, there) = (w.layer(b"1"), w.layer(b"2"));
    w.store.layers().discard(&gone).unwrap();
    let _expected = w.ids.expect("b");
    w.ids.made("b", [gone, there].into_iter());
    while w.waiting().contains(&there) {
        tokio::task::yield_now().await;
    }
    w.ids.settled(&there).await;
    assert!(w.info(&there).diff_id.is_some());
    assert_eq!(w.store.layers().get(&gone).unwrap(), None);
    w.ids.close();
}
