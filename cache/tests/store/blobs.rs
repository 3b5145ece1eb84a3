//! Blobs.

use std::io::{Read, Write};

use cache::store::StoreError;
use solver::Digest;

use crate::support::{TestStore, add_blob, names};

#[test]
fn write_and_read() {
    let test = TestStore::new();
    let (store, lease) = (&test.store, test.store.lease());
    let mut writer = store.blobs().writer().unwrap();
    writer.write_all(b"hello ").unwrap();
    writer.write_all(b"world").unwrap();
    let expected = Digest::of(b"hello world");
    assert_eq!(writer.commit(&lease, Some(&expected), Default::default()).unwrap(), expected);
    assert_eq!(store.blobs().read(&expected, 100).unwrap(), b"hello world");
    assert_eq!(store.blobs().size(&expected).unwrap(), Some(11));
    let mut text = String::new();
    store.blobs().open(&expected).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello world");
}

#[test]
fn wrong_bytes_leave_nothing() {
    let test = TestStore::new();
    let mut writer = test.store.blobs().writer().unwrap();
    writer.write_all(b"evil").unwrap();
    let promised = Digest::of(b"good");
    let error = writer.commit(&test.store.lease(), Some(&promised), Default::default()).unwrap_err();
    assert!(matches!(error, StoreError::BlobMismatch { found_size: 4, .. }), "{error}");
    assert_eq!(test.store.blobs().size(&promised).unwrap(), None);
    assert_eq!(names(&test.root(), "tmp"), [""; 0]);
}

#[test]
fn damage_is_found_and_heals() {
    let test = TestStore::new();
    let (store, lease) = (&test.store, test.store.lease());
    let digest = add_blob(store, &lease, "precious");
    let path = test.root().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    std::fs::write(&path, "precioux").unwrap();
    assert!(matches!(store.blobs().read(&digest, 100), Err(StoreError::BlobDamaged { .. })));
    assert!(matches!(store.blobs().read(&digest, 100), Err(StoreError::BlobMissing(_))));
    add_blob(store, &lease, "precious");
    assert_eq!(store.blobs().read(&digest, 100).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(store.blobs().open(&digest), Err(StoreError::BlobMissing(_))));
    assert_eq!(store.blobs().hold(&lease, &digest).unwrap(), None, "the entry went too");
    add_blob(store, &lease, "precious");
    store.blobs().check(&digest).unwrap();
    std::fs::write(&path, "precioux").unwrap();
    let error = store.blobs().check(&digest).unwrap_err();
    assert!(error.to_string().contains(&digest.to_string()), "{error}");
    assert!(matches!(store.blobs().check(&digest), Err(StoreError::BlobMissing(_))));
}

#[test]
fn large_ones_are_not_read_whole() {
    let test = TestStore::new();
    let digest = add_blob(&test.store, &test.store.lease(), "0123456789");
    assert!(test.store.blobs().read(&digest, 10).is_ok());
    let error = test.store.blobs().read(&digest, 9).unwrap_err();
    assert!(matches!(error, StoreError::BlobTooLarge { size: 10, limit: 9, .. }), "{error}");
}
