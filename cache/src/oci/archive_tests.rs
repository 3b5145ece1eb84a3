//! Archives written, then read back and compared entry by entry.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use solver::Digest;

use super::{
    Amend, ArchiveFormat, ArchiveImage, ArchiveWriter, BlobSource, Descriptor, DockerArchive, Error,
    ImageArchive, Index, Layout, Manifest, Reference, media_type,
};

/// Blobs in memory.
#[derive(Default)]
struct Blobs(BTreeMap<Digest, Vec<u8>>);

impl Blobs {
    fn add(&mut self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.0.insert(descriptor.digest, bytes);
        descriptor
    }

    /// An image of one layer for a platform.
    fn image(&mut self, architecture: &str) -> Descriptor {
        let layer = self.add(media_type::OCI_LAYER, format!("layer of {architecture}"));
        let diff_id = layer.digest;
        let config = self.add(
            media_type::OCI_CONFIG,
            format!(r#"{{"architecture":"{architecture}","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#),
        );
        let mut manifest = self.add(media_type::OCI_MANIFEST, Manifest::new(config, vec![layer]).to_json());
        manifest.platform = Some(format!("linux/{architecture}").parse().unwrap());
        manifest
    }
}

impl BlobSource for Blobs {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>> {
        let bytes = self.0.get(&descriptor.digest).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(bytes.as_slice()))
    }
}

fn write(
    format: ArchiveFormat,
    target: &Descriptor,
    names: &[&str],
    blobs: &Blobs,
) -> Result<Vec<u8>, Error> {
    let names = names.iter().map(|name| Reference::parse(name).unwrap()).collect();
    let created = Some("2024-01-01T00:00:00Z".to_owned());
    let image = ArchiveImage { target: target.clone(), names, created };
    ArchiveWriter::new(Vec::new())?.finish(format, &[image], blobs)
}

fn on_disk(archive: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(archive).unwrap();
    file
}

/// Name, type, mode and size of each entry, digests shortened.
fn listing(archive: &[u8]) -> String {
    let mut tar = tar::Archive::new(archive);
    let entry = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
        let entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let (header, name) = (entry.header(), path.chars().take(16).collect::<String>());
        assert_eq!(
            (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()),
            (0, 0, 0),
            "{path}"
        );
        format!("{:?} {:o} {} {name}\n", header.entry_type(), header.mode().unwrap(), entry.size())
    };
    tar.entries().unwrap().map(entry).collect()
}

fn content(archive: &[u8], name: &str) -> String {
    let mut tar = tar::Archive::new(archive);
    let entry =
        tar.entries().unwrap().map(Result::unwrap).find(|entry| entry.path().unwrap() == Path::new(name));
    let mut text = String::new();
    entry.unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn an_oci_archive_has_buildkits_layout() {
    let mut blobs = Blobs::default();
    let target = blobs.image("amd64");
    let archive = write(ArchiveFormat::Oci, &target, &["app:1"], &blobs).unwrap();
    insta::assert_snapshot!(listing(&archive), @r"
    Directory 755 0 blobs/
    Directory 755 0 blobs/sha256/
    Regular 444 470 blobs/sha256/2d7
    Regular 444 14 blobs/sha256/9e1
    Regular 444 151 blobs/sha256/c64
    Regular 644 456 index.json
    Regular 444 30 oci-layout
    ");
    insta::assert_snapshot!(content(&archive, "index.json"), @r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:2d7eaea72728329034c8df2693da65286fe4c77583a81423591295183f7ed0b5","size":470,"annotations":{"io.containerd.image.name":"docker.io/library/app:1","org.opencontainers.image.created":"2024-01-01T00:00:00Z","org.opencontainers.image.ref.name":"1"},"platform":{"architecture":"amd64","os":"linux"}}]}"#);
    assert_eq!(archive, write(ArchiveFormat::Oci, &target, &["app:1"], &blobs).unwrap(), "equal every time");
}

impl Amend for Vec<u8> {
    fn amend(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// A blob that is written as it is made looks like one that is copied, and is not written again.
#[test]
fn a_blob_can_be_written_before_it_is_known() {
    let mut blobs = Blobs::default();
    let target = blobs.image("amd64");
    let text = b"layer of amd64";
    let layer = Descriptor::of(media_type::OCI_LAYER, text);
    let mut copied = ArchiveWriter::new(Vec::new()).unwrap();
    copied.blob(&layer, &blobs).unwrap();
    let made = ArchiveWriter::new(Vec::new()).unwrap().blob_as_made(|mut out| {
        out.write_all(text).unwrap();
        Ok::<_, Error>((out, layer.clone(), ()))
    });
    let image = ArchiveImage { target, names: vec![], created: None };
    let finish = |archive: ArchiveWriter<Vec<u8>>| {
        archive.finish(ArchiveFormat::Oci, std::slice::from_ref(&image), &blobs).unwrap()
    };
    let made = finish(made.unwrap().0);
    insta::assert_snapshot!(listing(&made), @r"
    Directory 755 0 blobs/
    Directory 755 0 blobs/sha256/
    Regular 444 14 blobs/sha256/9e1
    Regular 444 470 blobs/sha256/2d7
    Regular 444 151 blobs/sha256/c64
    Regular 644 289 index.json
    Regular 444 30 oci-layout
    ");
    assert!(made == finish(copied));
}

#[test]
fn a_docker_archive_names_config_and_layers() {
    let mut blobs = Blobs::default();
    let target = blobs.image("amd64");
    let archive = write(ArchiveFormat::Docker, &target, &["app:1", "localhost:5000/x/y:z"], &blobs).unwrap();
    insta::assert_snapshot!(content(&archive, "manifest.json"), @r#"[{"Config":"blobs/sha256/c645cd04c8a3de2961040d84604a20f345822dcb0b7ff3ebcea00732bb2b8a15","RepoTags":["app:1","localhost:5000/x/y:z"],"Layers":["blobs/sha256/9e14d4cef0c919b065efd9d742509c035e5cf839c8f8184abff6f35814ea6f03"]}]"#);
    assert!(!listing(&write(ArchiveFormat::Oci, &target, &[], &blobs).unwrap()).contains("manifest.json"));
}

#[test]
fn what_was_written_is_read_back() {
    let mut blobs = Blobs::default();
    let manifests = vec![blobs.image("arm64"), blobs.image("amd64")];
    let amd64 = manifests[1].digest;
    let index = blobs.add(media_type::OCI_INDEX, Index::new(manifests).to_json());
    let file = on_disk(&write(ArchiveFormat::Docker, &index, &["app:1", "app:2"], &blobs).unwrap());
    let ImageArchive::Layout(layout) = ImageArchive::open(file.path()).unwrap() else {
        panic!("an OCI layout")
    };

    let names: Vec<String> = layout.names().iter().map(|(name, _)| name.familiar()).collect();
    assert_eq!(names, ["app:1", "app:2"]);
    for name in [None, Some("1"), Some("docker.io/library/app:2"), Some(&*index.digest.to_string())] {
        assert_eq!(layout.find(name).unwrap().digest, index.digest, "{name:?}");
    }
    assert_eq!(layout.find(Some(&amd64.to_string())).unwrap().digest, amd64, "not in index.json itself");
    assert!(matches!(layout.find(Some("3")), Err(Error::MissingImage { .. })));

    let target = layout.find(None).unwrap();
    let resolved = layout.resolve(&target, &"linux/amd64".parse().unwrap()).unwrap();
    assert_eq!((resolved.digest, resolved.manifest_digest()), (index.digest, amd64));
    let mut layer = String::new();
    layout.open_blob(&resolved.manifest.layers[0]).unwrap().read_to_string(&mut layer).unwrap();
    assert_eq!(layer, "layer of amd64");
    assert!(layout.resolve(&target, &"linux/s390x".parse().unwrap()).is_err());
}

#[test]
fn a_directory_is_read_like_an_archive_but_links_are_not_followed() {
    let mut blobs = Blobs::default();
    let target = blobs.image("amd64");
    let directory = tempfile::tempdir().unwrap();
    let archive = write(ArchiveFormat::Oci, &target, &["app"], &blobs).unwrap();
    tar::Archive::new(archive.as_slice()).unpack(directory.path()).unwrap();
    let platform = "linux/amd64".parse().unwrap();
    let layout = Layout::open(directory.path()).unwrap();
    let resolved = layout.resolve(&layout.find(None).unwrap(), &platform).unwrap();

    let blob = directory.path().join(super::archive::path(&resolved.config_digest()));
    let moved = directory.path().join("moved");
    fs_err::rename(&blob, &moved).unwrap();
    assert!(matches!(layout.resolve(&target, &platform), Err(Error::MissingBlob { .. })));
    std::os::unix::fs::symlink(&moved, &blob).unwrap();
    assert!(matches!(layout.resolve(&target, &platform), Err(Error::Io { .. })));
}

#[test]
fn damaged_blobs_are_neither_written_nor_read() {
    let mut blobs = Blobs::default();
    let target = blobs.image("amd64");
    let archive = write(ArchiveFormat::Oci, &target, &[], &blobs).unwrap();
    let at = archive.windows(14).position(|window| window == b"layer of amd64").unwrap();
    let mut damaged = archive;
    damaged[at] ^= 1;
    let file = on_disk(&damaged);
    let layout = Layout::open(file.path()).unwrap();
    let resolved = layout.resolve(&target, &"linux/amd64".parse().unwrap()).unwrap();
    let error =
        io::copy(&mut layout.open_blob(&resolved.manifest.layers[0]).unwrap(), &mut io::sink()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);

    let layer = resolved.manifest.layers[0].digest;
    blobs.0.insert(layer, b"layer of amd65".to_vec());
    assert!(matches!(write(ArchiveFormat::Oci, &target, &[], &blobs), Err(Error::Io { .. })));
    blobs.0.remove(&layer);
    assert!(matches!(write(ArchiveFormat::Oci, &target, &[], &blobs), Err(Error::Io { .. })));
}

/// A tar archive of files and links, `name -> target`.
fn tar_of(entries: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        let (name, link) = name.split_once(" -> ").map_or((*name, None), |(name, link)| (name, Some(link)));
        // Written past the library's own checks, as an attacker would.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        match link {
            Some(link) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name(link).unwrap();
                header.set_size(0);
            }
            None => header.set_size(data.len() as u64),
        }
        header.set_cksum();
        builder.append(&header, if link.is_some() { &[] } else { *data }).unwrap();
    }
    on_disk(&builder.into_inner().unwrap())
}

#[test]
fn old_docker_archives_are_read() {
    let layer = b"a layer tar";
    let diff_id = Digest::of(layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}}}}"#
    );
    let manifest =
        br#"[{"Config":"c.json","RepoTags":["app:1","Bad Name"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    let file = tar_of(&[
        ("a/layer.tar", layer),
        ("b/layer.tar -> ../a/layer.tar", b""),
        ("c.json", config.as_bytes()),
        ("manifest.json", manifest),
    ]);
    let ImageArchive::Docker(archive) = ImageArchive::open(file.path()).unwrap() else {
        panic!("no OCI layout")
    };
    let [image] = archive.images() else { panic!("one image") };
    assert_eq!(image.names.iter().map(Reference::familiar).collect::<Vec<_>>(), ["app:1"]);
    assert_eq!(image.config_digest, Digest::of(config.as_bytes()));
    for described in &image.layers {
        let mut read = Vec::new();
        archive.open_layer(described).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!((read.as_slice(), described.diff_id, described.size), (&layer[..], diff_id, 11));
    }
}

#[test]
fn ambiguous_and_escaping_archives_are_refused() {
    let manifest: &[u8] = br#"[{"Config":"c.json","Layers":["l.tar"]}]"#;
    let config: &[u8] = br#"{"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;
    type Entries<'a> = &'a [(&'a str, &'a [u8])];
    let cases: [(Entries<'_>, &str); 6] = [
        (&[("manifest.json", manifest), ("manifest.json", manifest)], "it has two entries `manifest.json`"),
        (&[("manifest.json", manifest), ("./manifest.json", b"[]")], "it has two entries `manifest.json`"),
        (&[("../x", b"")], "it has an entry `../x`"),
        (&[("/etc/passwd", b"")], "it has an entry `/etc/passwd`"),
        (
            &[("manifest.json", manifest), ("c.json", config), ("l.tar -> ../../../etc/passwd", b"")],
            "it has no `l.tar`",
        ),
        (&[("x", b"")], "it has no `manifest.json`"),
    ];
    for (entries, reason) in cases {
        let file = tar_of(entries);
        let error = DockerArchive::open(file.path()).unwrap_err();
        let origin = file.path().display();
        assert_eq!(error.to_string(), format!("`{origin}` is no image archive: {reason}"));
    }
}

#[test]
fn names_and_records_without_end_are_refused_unread() {
    for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(50 << 30);
        header.set_cksum();
        let file = on_disk(header.as_bytes());
        file.as_file().set_len((50 << 30) + 2048).unwrap();
        let error = DockerArchive::open(file.path()).unwrap_err().to_string();
        assert!(error.ends_with("it is no tar archive, or a damaged one"), "{kind:?}: {error}");
    }
}

#[test]
fn an_archive_cut_short_is_refused() {
    let file = tar_of(&[("manifest.json", b"[]")]);
    file.as_file().set_len(513).unwrap();
    let error = DockerArchive::open(file.path()).unwrap_err().to_string();
    assert!(error.ends_with("it is no tar archive, or a damaged one"), "{error}");
}

#[test]
fn what_is_no_tar_archive_is_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("passwd");
    std::fs::write(&path, "root:x:0:0:root:/root:/bin/bash\n".repeat(40)).unwrap();
    let error = DockerArchive::open(&path).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("`{}` is no image archive: it is no tar archive, or a damaged one", path.display())
    );
}
