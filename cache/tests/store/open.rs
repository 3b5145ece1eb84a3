//! Opening a root: lock, format, foreign directories.

use cache::store::{Store, StoreError, StoreOptions};

use crate::support::{TestStore, add_blob};

fn fails(root: &std::path::Path) -> StoreError {
    Store::open(root, StoreOptions::default()).unwrap_err()
}

#[test]
fn one_process_per_root() {
    let test = TestStore::new();
    let error = fails(&test.root());
    let StoreError::Locked { holder, .. } = &error else { panic!("{error}") };
    assert!(holder.contains(&format!("(pid {})", std::process::id())), "{holder}");
    let root = test.root();
    let TestStore { store, dir: _dir } = test;
    let clone = store.clone();
    drop(store);
    assert!(matches!(fails(&root), StoreError::Locked { .. }), "a handle is left");
    drop(clone);
    Store::open(&root, StoreOptions::default()).unwrap();
}

#[test]
fn a_newer_format_is_refused() {
    let test = TestStore::new();
    let root = test.root();
    let TestStore { store, dir: _dir } = test;
    drop(store);
    std::fs::write(root.join("format"), "rbuild-store 99\n").unwrap();
    let error = fails(&root);
    assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
}

#[test]
fn an_older_format_is_emptied() {
    let test = TestStore::new();
    let digest = add_blob(&test.store, &test.store.lease(), "old");
    let root = test.root();
    let TestStore { store, dir: _dir } = test;
    drop(store);
    std::fs::write(root.join("format"), "rbuild-store 0\n").unwrap();
    std::fs::write(root.join("of-the-user"), "").unwrap();
    let store = Store::open(&root, StoreOptions::default()).unwrap();
    assert_eq!(store.recovery().emptied_format, Some(0));
    assert_eq!(store.blobs().size(&digest).unwrap(), None);
    assert!(root.join("of-the-user").exists(), "only what a store makes is removed");
}

#[test]
fn a_foreign_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
    assert!(matches!(fails(dir.path()), StoreError::Foreign { .. }));
    std::fs::write(dir.path().join("format"), "pdf").unwrap();
    assert!(matches!(fails(dir.path()), StoreError::Foreign { .. }));
    assert!(dir.path().join("thesis.tex").exists());
}

#[test]
fn an_empty_tmp_is_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tmp")).unwrap();
    Store::open(dir.path(), StoreOptions::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("tmp/thesis")).unwrap();
    assert!(matches!(fails(dir.path()), StoreError::Foreign { .. }));
}

#[test]
fn tmp_is_emptied() {
    let test = TestStore::new();
    let left = test.root().join("tmp/layer-x");
    std::fs::create_dir_all(left.join("fs")).unwrap();
    let test = test.reopen("boot-1");
    // Removal runs beside us.
    let gone = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        !left.exists()
    });
    assert!(gone);
    assert_eq!(test.store.recovery(), &Default::default());
}
