//! Writing images as tar archives, in the layout that BuildKit's `oci` and `docker` exporters have.
//!
//! ```text
//! blobs/                  directory
//! blobs/sha256/           directory
//! blobs/sha256/<hex>      every index, manifest, config and layer, sorted
//! index.json              the images, one entry per name, annotated with it
//! manifest.json           only for Docker: config, tags and layers by path
//! oci-layout
//! ```
//! Entries are sorted, owned by root and dated 1970, so equal images give equal archives.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::Serialize;
use solver::Digest;

use super::document::MANIFEST_LIMIT;
use super::{Descriptor, Document, Error, Index, Manifest, Reference, VerifiedReader};

/// The content of the file `oci-layout`.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The tag, or the tag and digest, of an entry in `index.json`.
pub(crate) const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name of an entry in `index.json`.
pub(crate) const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";
/// When the archive's image was exported, RFC 3339.
const ANNOTATION_CREATED: &str = "org.opencontainers.image.created";

/// How deep indexes may lie in each other.
pub(crate) const MAX_INDEX_DEPTH: usize = 3;

/// Where the blobs of an archive come from.
pub trait BlobSource {
    /// Opens a blob for reading from its start. What is read is verified by the caller.
    ///
    /// # Errors
    /// The blob is not there or cannot be read.
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>>;
}

/// Which reader the archive is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI image layout.
    Oci,
    /// The same with Docker's `manifest.json`, which `docker load` needs before version 25.
    Docker,
}

/// An image to write.
#[derive(Clone, Debug)]
pub struct ArchiveImage {
    /// Its index or manifest.
    pub target: Descriptor,
    /// Its names; without one it is only found by digest.
    pub names: Vec<Reference>,
    /// The time to note in `index.json`, RFC 3339.
    pub created: Option<String>,
}

/// Writes `images` and all that they lead to. Blobs stream through; only documents are held in memory.
///
/// # Errors
/// A blob is missing, damaged or of another size than its descriptor says, or writing failed.
pub fn write_archive<W: Write>(
    writer: W,
    format: ArchiveFormat,
    images: &[ArchiveImage],
    blobs: &dyn BlobSource,
) -> Result<W, Error> {
    let mut plan = Plan::default();
    for image in images {
        let first = plan.add(&image.target, blobs, 0)?;
        plan.name(image, first.as_ref());
    }
    let mut tar = Tar { builder: tar::Builder::new(writer) };
    tar.directory("blobs/")?;
    tar.directory("blobs/sha256/")?;
    for descriptor in plan.blobs.values() {
        let source =
            blobs.open(descriptor).map_err(Error::io(format!("cannot read blob `{}`", descriptor.digest)))?;
        tar.blob(descriptor, source)?;
    }
    tar.file("index.json", 0o644, &json(&Index::new(plan.entries)))?;
    if format == ArchiveFormat::Docker && !plan.docker.is_empty() {
        tar.file("manifest.json", 0o644, &json(&plan.docker.values().collect::<Vec<_>>()))?;
    }
    tar.file("oci-layout", 0o444, OCI_LAYOUT)?;
    tar.builder.into_inner().map_err(Error::io("cannot write the archive"))
}

/// What goes into an archive.
#[derive(Default)]
struct Plan {
    blobs: BTreeMap<Digest, Descriptor>,
    entries: Vec<Descriptor>,
    docker: BTreeMap<Digest, DockerEntry>,
}

/// An image in Docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Plan {
    /// Adds a manifest or index and what it leads to; returns the first image found.
    fn add(
        &mut self,
        target: &Descriptor,
        blobs: &dyn BlobSource,
        depth: usize,
    ) -> Result<Option<(Digest, Manifest)>, Error> {
        let document = read_document(target, blobs)?;
        self.blobs.insert(target.digest, target.clone());
        match document {
            Document::Manifest(manifest) => {
                for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    self.blobs.entry(blob.digest).or_insert_with(|| blob.clone());
                }
                Ok((!target.is_attestation()).then_some((target.digest, *manifest)))
            }
            Document::Index(_) if depth == MAX_INDEX_DEPTH => {
                Err(Error::Unsupported { reason: format!("indexes nested deeper than {MAX_INDEX_DEPTH}") })
            }
            Document::Index(index) => {
                let mut first = None;
                for entry in &index.manifests {
                    let found = self.add(entry, blobs, depth + 1)?;
                    first = first.or(found);
                }
                Ok(first)
            }
        }
    }

    /// Lists an image under its names.
    fn name(&mut self, image: &ArchiveImage, first: Option<&(Digest, Manifest)>) {
        let mut entry = image.target.clone();
        if let Some(created) = &image.created {
            entry.annotations.entry(ANNOTATION_CREATED.to_owned()).or_insert_with(|| created.clone());
        }
        if image.names.is_empty() {
            self.entries.push(entry.clone());
        }
        for name in &image.names {
            let mut named = entry.clone();
            named.annotations.insert(ANNOTATION_IMAGE_NAME.to_owned(), name.to_string());
            named.annotations.insert(ANNOTATION_REF_NAME.to_owned(), name.identifier());
            self.entries.push(named);
        }
        let Some((digest, manifest)) = first else { return };
        let docker = self.docker.entry(*digest).or_insert_with(|| DockerEntry {
            config: path(&manifest.config.digest),
            repo_tags: Vec::new(),
            layers: manifest.layers.iter().map(|layer| path(&layer.digest)).collect(),
        });
        docker.repo_tags.extend(image.names.iter().map(Reference::familiar));
    }
}

/// Reads and parses a manifest or index, verified.
fn read_document(target: &Descriptor, blobs: &dyn BlobSource) -> Result<Document, Error> {
    if target.size > MANIFEST_LIMIT {
        return Err(Error::TooLarge { what: "manifest", limit: MANIFEST_LIMIT });
    }
    let reading = || format!("cannot read manifest `{}`", target.digest);
    let source = blobs.open(target).map_err(Error::io(reading()))?;
    let mut bytes = Vec::new();
    VerifiedReader::new(source, target.digest, target.size)
        .read_to_end(&mut bytes)
        .map_err(Error::io(reading()))?;
    Document::parse(&bytes, Some(&target.media_type))
}

/// Where a blob lies in a layout.
pub(crate) fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the documents of an archive have string keys only")
}

struct Tar<W: Write> {
    builder: tar::Builder<W>,
}

impl<W: Write> Tar<W> {
    fn directory(&mut self, name: &str) -> Result<(), Error> {
        self.append(name, tar::EntryType::Directory, 0o755, 0, io::empty())
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<(), Error> {
        self.append(name, tar::EntryType::Regular, mode, content.len() as u64, content)
    }

    fn blob(&mut self, descriptor: &Descriptor, source: impl Read) -> Result<(), Error> {
        let verified = VerifiedReader::new(source, descriptor.digest, descriptor.size);
        let name = path(&descriptor.digest);
        self.append(&name, tar::EntryType::Regular, 0o444, descriptor.size, verified)
    }

    fn append(
        &mut self,
        name: &str,
        kind: tar::EntryType,
        mode: u32,
        size: u64,
        content: impl Read,
    ) -> Result<(), Error> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        // Blank number fields are no numbers to some readers.
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        self.builder
            .append_data(&mut header, name, content)
            .map_err(Error::io(format!("cannot write `{name}` into the archive")))
    }
}
