//! The stat cache.

use cache::store::{DirKey, StatEntry};

use crate::support::{TestStore, prune_all};

fn entry(n: u64) -> StatEntry {
    let name = format!("file-{n:05}").into_bytes().into();
    StatEntry { name, ino: n, size: n * 3, mtime_ns: -5, ctime_ns: i64::MAX, digest: [n as u8; 32] }
}

#[test]
fn directories_come_back_until_the_next_boot() {
    let test = TestStore::new();
    let dir = |ino| DirKey { dev: 7, ino };
    let large: Vec<_> = (0..30_000).map(entry).collect();
    let cache = test.store.stat_cache();
    cache.store_dirs(vec![(dir(1), large.clone()), (dir(2), vec![entry(2), entry(1)])]).unwrap();
    assert_eq!(cache.load_dir(dir(1)).unwrap(), large);
    assert_eq!(cache.load_dir(dir(2)).unwrap(), [entry(1), entry(2)], "sorted");
    assert_eq!(cache.load_dir(dir(3)).unwrap(), []);
    drop(cache);
    let test = test.reopen("boot-1");
    assert_eq!(test.store.stat_cache().load_dir(dir(1)).unwrap().len(), 30_000);
    test.store.checkpoint().unwrap();
    let test = test.reopen("boot-2");
    assert_eq!(test.store.stat_cache().load_dir(dir(1)).unwrap(), [], "inode numbers mean nothing any more");
}

#[test]
fn a_full_prune_empties_it() {
    let test = TestStore::new();
    let dir = DirKey { dev: 1, ino: u64::MAX };
    test.store.stat_cache().store_dirs(vec![(dir, vec![entry(1)])]).unwrap();
    prune_all(&test.store);
    assert_eq!(test.store.stat_cache().load_dir(dir).unwrap(), []);
}
