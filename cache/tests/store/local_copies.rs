//! Copies of clients' directories: who gets which, and which are believed.

use std::time::Duration;

use cache::store::{CacheMountLease, PrunePolicy, UsageKind};
use tokio_util::sync::CancellationToken;

use crate::support::TestStore;

async fn get(test: &TestStore, identity: &[&str]) -> CacheMountLease {
    let copies = test.store.local_copies();
    copies.acquire(identity, "local source for context".to_owned()).await.unwrap()
}

/// Takes the copy, fills it if it is new, and gives it back; whether it was there.
async fn visit(test: &TestStore) -> bool {
    let copy = get(test, &["context", "", "key"]).await;
    let file = copy.dir().join("file");
    let there = file.exists();
    std::fs::write(file, "content").unwrap();
    there
}

#[tokio::test]
async fn each_has_its_own() {
    let test = TestStore::new();
    let a = get(&test, &["context", "hint", "key"]).await;
    let b = get(&test, &["context", "hint", "key"]).await;
    assert_ne!(a.dir(), b.dir(), "it is taken");
    let (first, second) = (a.dir().to_owned(), b.dir().to_owned());
    drop((b, a));
    for identity in [["context", "hint", ""], ["context", "hintk", "ey"], ["other", "hint", "key"]] {
        let other = get(&test, &identity).await;
        assert!(![&*first, &*second].contains(&other.dir()), "{identity:?}");
    }
    let again = get(&test, &["context", "hint", "key"]).await;
    assert_eq!(again.dir(), first);
}

#[tokio::test]
async fn they_are_local_sources() {
    let test = TestStore::new();
    let copy = get(&test, &["context"]).await;
    std::fs::write(copy.dir().join("file"), [1; 100_000]).unwrap();
    let du = || test.store.du(&["type==source.local".to_owned()], Duration::ZERO).unwrap();
    let found = du();
    assert_eq!((found.len(), found[0].kind, found[0].in_use), (1, UsageKind::LocalSource, true));
    assert_eq!(found[0].description, "local source for context");
    assert!(found[0].size >= 100_000, "counted: {}", found[0].size);
    copy.set_size(5_000);
    drop(copy);
    assert_eq!((du()[0].size, du()[0].in_use), (5_000, false), "said");
    drop(get(&test, &["context"]).await);
    assert!(du()[0].size >= 100_000, "nobody knows any more");
    let policy = PrunePolicy { filters: vec!["type==source.local".to_owned()], ..PrunePolicy::default() };
    let pruned = test.store.prune(&policy, &CancellationToken::new(), &mut |_| {}).unwrap();
    assert_eq!(pruned.items, 1);
    assert!(du().is_empty());
}

#[tokio::test]
async fn after_a_power_cut_only_what_a_checkpoint_covers_is_believed() {
    let test = TestStore::new();
    assert!(!visit(&test).await);
    let test = test.reopen("boot-1");
    assert!(visit(&test).await, "a kill takes nothing");
    let test = test.reopen("boot-2");
    assert!(!visit(&test).await, "what the disk has of it is not known");
    test.store.checkpoint().unwrap();
    let test = test.reopen("boot-3");
    assert!(visit(&test).await, "all of it was on disk");
}
