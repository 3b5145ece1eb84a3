//! Push and pull through a real registry.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cache::oci::{Descriptor, Index, Platform, Reference, media_type};
use cache::registry::{Client, Direction, DocumentCache, Error, HostConfig, NoCache, Pushed, Transfer};
use solver::Digest;
use tokio::io::AsyncReadExt;

use crate::debian::Debian;
use crate::{anonymous, configured, image, logged_in, read};

/// `user:secret`, bcrypt at cost 5.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuHIrMEWpUCQe2YqFR3sXwQ75u4od..9q\n";
/// What the line above is the hash of.
const PASSWORD: &str = "pw";

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// Bytes that are not all alike.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 251) as u8).collect()
}

async fn push_image(client: &Client, target: &Reference, layer: &[u8]) -> Result<Digest, Error> {
    let [config, layer, manifest] = image(layer);
    for (descriptor, data) in [&config, &layer] {
        let source = Arc::new(Bytes::from(data.clone()));
        client.push_blob(target, descriptor, None, source).await?;
    }
    client.push_manifest(target, media_type::OCI_MANIFEST, &manifest.1).await
}

#[tokio::test]
async fn an_image_comes_back_as_it_was_pushed() {
    let Some(registry) = Debian::start(None) else { return };
    let client = anonymous();
    let target = Reference::parse(&format!("{}/team/app:1", registry.host)).unwrap();
    let layer = bytes(3 << 20);
    let pushed = push_image(&client, &target, &layer).await.unwrap();

    let head = client.head(&target).await.unwrap();
    assert_eq!((head.digest, head.media_type.as_str()), (pushed, media_type::OCI_MANIFEST));
    let resolved = client.resolve(&target, &amd64(), &NoCache).await.unwrap();
    assert_eq!((resolved.digest, resolved.manifest_digest()), (pushed, pushed));
    assert_eq!(resolved.config.platform.architecture, "amd64");
    let (descriptor, diff_id) = resolved.layers().next().unwrap();
    assert_eq!(*diff_id, Digest::of(&layer));
    assert!(read(client.fetch_blob(&target, descriptor).unwrap()).await.unwrap() == layer);
    let mut through_reader = Vec::new();
    let (mut reader, fault) = client.fetch_blob(&target, descriptor).unwrap().into_reader();
    reader.read_to_end(&mut through_reader).await.unwrap();
    assert!(through_reader == layer && fault.take().is_none());

    let by_digest = target.with_digest(pushed);
    assert_eq!(client.resolve(&by_digest, &amd64(), &NoCache).await.unwrap(), resolved);
}

#[tokio::test]
async fn blobs_are_sent_once_and_mounted_elsewhere() {
    let Some(registry) = Debian::start(None) else { return };
    let client = anonymous();
    let first = Reference::parse(&format!("{}/first", registry.host)).unwrap();
    let second = Reference::parse(&format!("{}/second", registry.host)).unwrap();
    let data = Bytes::from(bytes(100_000));
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &data);
    let source = Arc::new(data);
    let push = |target, from| client.push_blob(target, &descriptor, from, source.clone());
    assert!(!client.blob_exists(&first, &descriptor.digest).await.unwrap());
    assert_eq!(push(&first, None).await.unwrap(), Pushed::Uploaded);
    assert!(client.blob_exists(&first, &descriptor.digest).await.unwrap());
    assert_eq!(push(&first, None).await.unwrap(), Pushed::Existed);
    assert_eq!(push(&second, Some("first")).await.unwrap(), Pushed::Mounted);
    let missing = Digest::of(b"nowhere");
    assert!(!client.mount_blob(&second, &missing, "first").await.unwrap());
}

#[tokio::test]
async fn files_are_pushed_and_progress_is_reported() {
    let Some(registry) = Debian::start(None) else { return };
    let seen = Arc::new(Mutex::new(Vec::<Transfer>::new()));
    let sink = Arc::clone(&seen);
    let client = anonymous().with_progress(Arc::new(move |transfer| sink.lock().unwrap().push(transfer)));
    let target = Reference::parse(&format!("{}/file", registry.host)).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let data = bytes(1 << 20);
    std::fs::write(file.path(), &data).unwrap();
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &data);
    let source = Arc::new(file.path().to_owned());
    assert_eq!(client.push_blob(&target, &descriptor, None, source).await.unwrap(), Pushed::Uploaded);
    read(client.fetch_blob(&target, &descriptor).unwrap()).await.unwrap();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    for direction in [Direction::Push, Direction::Pull] {
        let counts: Vec<u64> = seen.iter().filter(|t| t.direction == direction).map(|t| t.current).collect();
        assert!(counts.is_sorted(), "{direction:?}: {counts:?}");
        assert_eq!(counts.last(), Some(&descriptor.size), "{direction:?}");
    }

    let gone = Arc::new(std::path::PathBuf::from("/nonexistent/blob"));
    let other = Descriptor::of(media_type::OCI_LAYER, b"other");
    let error = client.push_blob(&target, &other, None, gone).await.unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error}");
}

#[tokio::test]
async fn an_index_leads_to_the_platform() {
    let Some(registry) = Debian::start(None) else { return };
    let client = anonymous();
    let target = Reference::parse(&format!("{}/multi:latest", registry.host)).unwrap();
    let mut entries = Vec::new();
    for platform in ["linux/arm64", "linux/amd64"] {
        let by_tag = target.with_tag(&platform.replace('/', "-")).unwrap();
        push_image(&client, &by_tag, platform.as_bytes()).await.unwrap();
        let mut entry = client.head(&by_tag).await.unwrap();
        entry.platform = Some(platform.parse().unwrap());
        entries.push(entry);
    }
    let index = Index::new(entries.clone()).to_json();
    let digest = client.push_manifest(&target, media_type::OCI_INDEX, &index).await.unwrap();
    let resolved = client.resolve(&target, &amd64(), &NoCache).await.unwrap();
    assert_eq!((resolved.digest, resolved.manifest_digest()), (digest, entries[1].digest));
    let error = client.resolve(&target, &"linux/s390x".parse().unwrap(), &NoCache).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error.to_string(), target.to_string());
    let expected = "no match for platform in manifest: not found: it has nothing for `linux/s390x`, only for linux/arm64, linux/amd64";
    assert_eq!(source, expected);
}

#[tokio::test]
async fn known_documents_are_not_fetched_again() {
    #[derive(Default)]
    struct Memory(Mutex<std::collections::HashMap<Digest, Vec<u8>>>);
    impl DocumentCache for Memory {
        fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
            self.0.lock().unwrap().get(digest).cloned()
        }
        fn put(&self, digest: &Digest, _media_type: &str, bytes: &[u8]) {
            self.0.lock().unwrap().insert(*digest, bytes.to_vec());
        }
    }
    let Some(registry) = Debian::start(None) else { return };
    let client = anonymous();
    let target = Reference::parse(&format!("{}/known:1", registry.host)).unwrap();
    push_image(&client, &target, b"layer").await.unwrap();
    let memory = Memory::default();
    let resolved = client.resolve(&target, &amd64(), &memory).await.unwrap();
    assert_eq!(memory.0.lock().unwrap().len(), 2, "manifest and config");
    drop(registry);
    let pinned = target.with_digest(resolved.digest);
    assert_eq!(client.resolve(&pinned, &amd64(), &memory).await.unwrap(), resolved);
    assert!(client.resolve(&target, &amd64(), &memory).await.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn passwords_are_asked_for() {
    let Some(registry) = Debian::start(Some(HTPASSWD)) else { return };
    let target = Reference::parse(&format!("{}/private:1", registry.host)).unwrap();
    let right = logged_in("user", PASSWORD);
    let digest = push_image(&right, &target, b"layer").await.unwrap();
    assert_eq!(right.resolve(&target, &amd64(), &NoCache).await.unwrap().digest, digest);
    let cases = [
        (logged_in("user", "wrong"), "wrong user name or password"),
        (anonymous(), "authentication required, but there is no password for it; log in first"),
    ];
    for (client, reason) in cases {
        let error = client.resolve(&target, &amd64(), &NoCache).await.unwrap_err();
        assert_eq!(error.to_string(), format!("registry `{}`: {reason}", registry.host));
    }
}

#[tokio::test]
async fn https_trusts_configured_authorities_only() {
    let Some((registry, certificate)) = Debian::start_tls() else { return };
    let target = Reference::parse(&format!("{}/secure:1", registry.host)).unwrap();
    let tls = HostConfig { http: Some(false), ..HostConfig::default() };
    let trusting = HostConfig { ca: vec![certificate], ..tls.clone() };
    let careless = HostConfig { insecure: true, ..tls.clone() };
    let either = HostConfig { insecure: true, http: Some(true), ..tls.clone() };
    for config in [trusting, careless, either] {
        let client = configured(&[(&registry.host, config)]);
        let layer = bytes(3 << 20);
        let digest = push_image(&client, &target, &layer).await.unwrap();
        let resolved = client.resolve(&target, &amd64(), &NoCache).await.unwrap();
        assert_eq!(resolved.digest, digest);
        let (descriptor, _) = resolved.layers().next().unwrap();
        assert!(read(client.fetch_blob(&target, descriptor).unwrap()).await.unwrap() == layer);
    }
    let error = configured(&[(&registry.host, tls)]).head(&target).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let Some(registry) = Debian::start(None) else { return };
    let client = anonymous();
    let target = Reference::parse(&format!("{}/nothing:here", registry.host)).unwrap();
    let error = client.resolve(&target, &amd64(), &NoCache).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{target}: not found"));
    let blob = Descriptor::of(media_type::OCI_LAYER, b"absent");
    let error = read(client.fetch_blob(&target, &blob).unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::BlobNotFound { .. }), "{error}");
}
