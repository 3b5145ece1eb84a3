//! Storage of the stat cache.

use bytes::Bytes;
use cache::context::{DirKey, StatCache};

use crate::support::{TestStore, prune_all};

const DIR: DirKey = DirKey { dev: 7, ino: u64::MAX };

#[test]
fn values_come_back_until_the_next_boot() {
    let test = TestStore::new();
    let cache = test.store.stat_cache();
    let large = Bytes::from(vec![5; 2 << 20]);
    cache.put(vec![(DIR, large.clone()), (DirKey { dev: 8, ..DIR }, Bytes::from_static(b"b"))]).unwrap();
    assert_eq!(cache.get(DIR).unwrap(), Some(large.clone()));
    assert_eq!(cache.get(DirKey { dev: 8, ..DIR }).unwrap().unwrap(), "b");
    assert_eq!(cache.get(DirKey { ino: 0, ..DIR }).unwrap(), None);
    drop(cache);
    let test = test.reopen("boot-1");
    assert_eq!(test.store.stat_cache().get(DIR).unwrap(), Some(large));
    test.store.checkpoint().unwrap();
    let test = test.reopen("boot-2");
    assert_eq!(test.store.stat_cache().get(DIR).unwrap(), None, "inode numbers mean nothing any more");
}

#[test]
fn a_full_prune_empties_it() {
    let test = TestStore::new();
    test.store.stat_cache().put(vec![(DIR, Bytes::from_static(b"a"))]).unwrap();
    prune_all(&test.store);
    assert_eq!(test.store.stat_cache().get(DIR).unwrap(), None);
}
