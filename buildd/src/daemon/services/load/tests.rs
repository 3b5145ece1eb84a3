//! Archives that are loaded into a store of their own.

use std::io::Write as _;

use cache::oci::{ImageMetadata, Platform};
use cache::store::{Store, StoreOptions};
use cache::tree::Trees;

use super::*;

/// A tar of files that belong to whoever runs the test.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1);
        tar.append_data(&mut header, name, *data).unwrap();
    }
    tar.into_inner().unwrap()
}

fn config(diff_ids: Vec<Digest>) -> Vec<u8> {
    let platform = Platform { architecture: "amd64".into(), os: "linux".into(), ..Platform::default() };
    let mut config = ImageMetadata { platform, ..ImageMetadata::default() };
    config.rootfs.diff_ids = diff_ids;
    config.to_json()
}

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
    loader: Arc<Loader>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("root"), StoreOptions::default()).unwrap();
        let chains = Chains { store: store.clone(), trees: Arc::new(Trees::new(Arc::new(store.nodes()))) };
        let loader = Arc::new(Loader { chains, lease: store.lease() });
        Self { dir, store, loader }
    }

    async fn load(&self, archive: &[u8]) -> Result<Vec<String>, String> {
        let path = self.dir.path().join("archive");
        let _ = fs_err::remove_file(&path);
        let loaded = async {
            spool(archive, &path)?;
            let images = match ImageArchive::open(&path).map_err(ExecError::failed)? {
                ImageArchive::Layout(layout) => self.loader.layout(Arc::from(layout)).await?,
                ImageArchive::Docker(docker) => self.loader.docker(Arc::new(docker)).await?,
            };
            self.loader.name(&images)
        };
        loaded.await.map_err(|e| failure::text(&e))
    }

    /// A file of an image as its layers show it.
    fn file(&self, image: &str, path: &str) -> Option<String> {
        let record = self.store.images().get(image).unwrap().unwrap();
        let dirs = self.loader.chains.dirs(&record.layers).unwrap();
        let view = cache::view::MergedView::open(&dirs).unwrap();
        view.read_small(path.as_bytes(), 1 << 20).unwrap().map(|data| String::from_utf8(data).unwrap())
    }
}

/// An image of two layers, the second of which hides what the first has in `d`, in docker's form.
fn docker_archive(tag: &str, diff_ids: impl FnOnce(&[u8], &[u8]) -> Vec<Digest>) -> Vec<u8> {
    let one = tar_of(&[("a", b"1"), ("d/old", b"old")]);
    let two = tar_of(&[("d/.wh..wh..opq", b""), ("d/new", b"new")]);
    let manifest =
        format!(r#"[{{"Config":"c.json","RepoTags":[{tag}],"Layers":["1/layer.tar","2/layer.tar"]}}]"#);
    let config = config(diff_ids(&one, &two));
    tar_of(&[
        ("c.json", &config),
        ("1/layer.tar", &one),
        ("2/layer.tar", &two),
        ("manifest.json", manifest.as_bytes()),
    ])
}

fn honest(one: &[u8], two: &[u8]) -> Vec<Digest> {
    vec![Digest::of(one), Digest::of(two)]
}

fn layout(name: Option<&str>) -> Vec<u8> {
    let layer = gzip(&tar_of(&[("b", b"2")]));
    let config = config(vec![Digest::of(&tar_of(&[("b", b"2")]))]);
    let manifest = Manifest::new(
        Descriptor::of(media_type::OCI_CONFIG, &config),
        vec![Descriptor::of(media_type::OCI_LAYER_GZIP, &layer)],
    );
    let manifest = manifest.to_json();
    let mut entry = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
    entry.annotations.extend(name.map(|n| ("io.containerd.image.name".to_owned(), n.to_owned())));
    let index = cache::oci::Index::new(vec![entry]).to_json();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    tar_of(&[
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", &index),
        (&blob(&manifest), &manifest),
        (&blob(&config), &config),
        (&blob(&layer), &layer),
    ])
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = cache::oci::Compressor::new(Vec::new(), cache::oci::Compression::default(), 1).unwrap();
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

#[tokio::test]
async fn docker_archives_and_layouts() {
    let f = Fixture::new();
    assert_eq!(f.load(&docker_archive(r#""a:1""#, honest)).await, Ok(vec!["a:1".to_owned()]));
    let a = "docker.io/library/a:1";
    assert_eq!(f.file(a, "/a").as_deref(), Some("1"));
    assert_eq!((f.file(a, "/d/old"), f.file(a, "/d/new").as_deref()), (None, Some("new")));

    assert_eq!(f.load(&gzip(&layout(Some("b")))).await, Ok(vec!["b".to_owned()]));
    assert_eq!(f.file("docker.io/library/b:latest", "/b").as_deref(), Some("2"));

    // Without a name the id is one.
    let id = f.load(&layout(None)).await.unwrap().remove(0);
    assert!(id.starts_with("sha256:") && f.file(&id, "/b").is_some(), "{id}");
    assert_eq!(f.store.verify().unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn bytes_that_are_not_the_images_are_refused() {
    let f = Fixture::new();
    // Advertises other diff IDs than its bytes have: nothing gets a name by them.
    let liar = docker_archive(r#""evil:1""#, |one, _| vec![Digest::of(one), Digest::of(b"other")]);
    let error = f.load(&liar).await.unwrap_err();
    assert!(error.contains("unpacks to diff ID"), "{error}");
    let mut damaged = layout(Some("c"));
    let at = damaged.windows(2).rposition(|w| w == [0x1f, 0x8b]).unwrap();
    damaged[at + 12] ^= 1;
    assert!(f.load(&damaged).await.is_err());
    for junk in [&b""[..], b"no archive", &tar_of(&[("x", b"y")])] {
        assert!(f.load(junk).await.is_err());
    }
    assert!(f.store.images().list().unwrap().is_empty());
}

/// An image and statements about it behind an index, with or without what the statements' manifest names.
fn attested_layout(statement: Option<&[u8]>) -> Vec<u8> {
    let config = config(Vec::new());
    let image = Manifest::new(Descriptor::of(media_type::OCI_CONFIG, &config), Vec::new()).to_json();
    let said = br#"{"_type":"https://in-toto.io/Statement/v1"}"#;
    let said = Descriptor::of(media_type::IN_TOTO, said);
    let about = Manifest::new(Descriptor::of(media_type::OCI_EMPTY, b"{}"), vec![said.clone()]).to_json();
    let mut about_entry = Descriptor::of(media_type::OCI_MANIFEST, &about);
    let digest = Digest::of(&image).to_string();
    about_entry.annotations = [
        ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned()),
        (Descriptor::ABOUT.to_owned(), digest),
    ]
    .into();
    let mut entry = Descriptor::of(media_type::OCI_MANIFEST, &image);
    entry.platform =
        Some(Platform { architecture: "amd64".into(), os: "linux".into(), ..Platform::default() });
    let index = cache::oci::Index::new(vec![entry, about_entry]).to_json();
    let mut outer = Descriptor::of(media_type::OCI_INDEX, &index);
    outer.annotations.insert("io.containerd.image.name".to_owned(), "docker.io/library/told:1".to_owned());
    let outer = cache::oci::Index::new(vec![outer]).to_json();
    let name = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let named = |bytes: &[u8]| name(&Digest::of(bytes));
    let statement = statement.map(|bytes| (name(&said.digest), bytes));
    let mut files = vec![
        ("oci-layout".to_owned(), &br#"{"imageLayoutVersion":"1.0.0"}"#[..]),
        ("index.json".to_owned(), &outer),
        (named(&index), &index),
        (named(&image), &image),
        (named(&config), &config),
        (named(&about), &about),
        (named(b"{}"), b"{}"),
    ];
    files.extend(statement);
    tar_of(&files.iter().map(|(name, data)| (&name[..], *data)).collect::<Vec<_>>())
}

#[tokio::test]
async fn statements_come_whole_or_not_at_all() {
    let said = br#"{"_type":"https://in-toto.io/Statement/v1"}"#;
    let f = Fixture::new();
    let record = || f.store.images().get("docker.io/library/told:1").unwrap().unwrap();
    f.load(&attested_layout(None)).await.unwrap();
    assert_eq!(
        (record().target.digest, record().blobs.len()),
        (record().manifest, 0),
        "some of it was missing"
    );
    f.load(&attested_layout(Some(said))).await.unwrap();
    assert_eq!((record().target.media_type.as_str(), record().blobs.len()), (media_type::OCI_INDEX, 3));
    assert_eq!(f.store.blobs().read(&Digest::of(said), 1 << 10).unwrap(), said);
    let mut other = *said;
    other[0] = b'[';
    assert!(f.load(&attested_layout(Some(&other))).await.is_err(), "not the bytes that were promised");
    assert_eq!(f.store.verify().unwrap().problems, Vec::<String>::new());
}
