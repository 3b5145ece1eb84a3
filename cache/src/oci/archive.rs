//! Writing images as tar archives, in the layout that BuildKit's `oci` and `docker` exporters have.
//!
//! ```text
//! blobs/                  directory
//! blobs/sha256/           directory
//! blobs/sha256/<hex>      every index, manifest, config and layer, sorted but for what was written ahead
//! index.json              the images, one entry per name, annotated with it
//! manifest.json           only for Docker: config, tags and layers by path
//! oci-layout
//! ```
//! Entries are sorted, owned by root and dated 1970, so equal images give equal archives.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use serde::Serialize;
use solver::Digest;

use super::ahead::copy_ahead;
use super::document::MANIFEST_LIMIT;
use super::{Descriptor, Document, Error, Index, Manifest, Reference, VerifiedReader};

/// The content of the file `oci-layout`.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The tag, or the tag and digest, of an entry in `index.json`.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name of an entry in `index.json`.
pub(crate) const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";
/// When the archive's image was exported, RFC 3339.
pub const ANNOTATION_CREATED: &str = "org.opencontainers.image.created";

/// How deep indexes may lie in each other.
pub(crate) const MAX_INDEX_DEPTH: usize = 3;

/// Bytes of a tar's header, and of what its entries are padded to.
const BLOCK: usize = 512;

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

/// A file whose bytes can be replaced when it is longer already.
pub trait Amend: Write {
    /// Replaces the bytes from `offset` on.
    ///
    /// # Errors
    /// The file cannot be written.
    fn amend(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// An archive that is being written.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
    length: u64,
    written: BTreeSet<Digest>,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive.
    ///
    /// # Errors
    /// Writing failed.
    pub fn new(out: W) -> Result<Self, Error> {
        let mut archive = Self { out, length: 0, written: BTreeSet::new() };
        archive.entry("blobs/", tar::EntryType::Directory, 0o755, 0, io::empty())?;
        archive.entry("blobs/sha256/", tar::EntryType::Directory, 0o755, 0, io::empty())?;
        Ok(archive)
    }

    /// Copies a blob, unless it is in the archive already.
    ///
    /// # Errors
    /// The blob is missing, damaged or of another size than its descriptor says, or writing failed.
    pub fn blob(&mut self, descriptor: &Descriptor, blobs: &dyn BlobSource) -> Result<(), Error> {
        if !self.written.insert(descriptor.digest) {
            return Ok(());
        }
        let source =
            blobs.open(descriptor).map_err(Error::io(format!("cannot read blob `{}`", descriptor.digest)))?;
        let verified = VerifiedReader::new(source, descriptor.digest, descriptor.size);
        self.entry(&path(&descriptor.digest), tar::EntryType::Regular, 0o444, descriptor.size, verified)
    }

    /// Writes `images` and all that they lead to. Blobs stream through; only documents are held in memory.
    ///
    /// # Errors
    /// A blob is missing, damaged or of another size than its descriptor says, or writing failed.
    pub fn finish(
        mut self,
        format: ArchiveFormat,
        images: &[ArchiveImage],
        blobs: &dyn BlobSource,
    ) -> Result<W, Error> {
        let mut plan = Plan::default();
        for image in images {
            let first = plan.add(&image.target, blobs, 0)?;
            plan.name(image, first.as_ref());
        }
        for descriptor in plan.blobs.values() {
            self.blob(descriptor, blobs)?;
        }
        self.file("index.json", 0o644, &json(&Index::new(plan.entries)))?;
        if format == ArchiveFormat::Docker && !plan.docker.is_empty() {
            self.file("manifest.json", 0o644, &json(&plan.docker.values().collect::<Vec<_>>()))?;
        }
        self.file("oci-layout", 0o444, OCI_LAYOUT)?;
        self.write(&[0; 2 * BLOCK]).map_err(Error::io("cannot write the archive"))?;
        Ok(self.out)
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<(), Error> {
        self.entry(name, tar::EntryType::Regular, mode, content.len() as u64, content)
    }

    fn entry(
        &mut self,
        name: &str,
        kind: tar::EntryType,
        mode: u32,
        size: u64,
        content: impl Read + Send,
    ) -> Result<(), Error> {
        let write = || {
            self.write(header(name, kind, mode, size)?.as_bytes())?;
            self.length += copy_ahead(content, size, &mut self.out)?;
            self.pad()
        };
        write().map_err(Error::io(format!("cannot write `{name}` into the archive")))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Ends an entry's last block.
    fn pad(&mut self) -> io::Result<()> {
        let missing = self.length.next_multiple_of(BLOCK as u64) - self.length;
        self.write(&[0; BLOCK][..missing as usize])
    }
}

impl<W: Amend> ArchiveWriter<W> {
    /// Lets `fill` write a blob of which nobody knows digest and length before it is written; `fill` returns them, and
    /// what else the caller wants to have.
    ///
    /// # Errors
    /// What `fill` gives, or writing failed.
    pub fn blob_as_made<T, E: From<Error>>(
        self,
        fill: impl FnOnce(W) -> Result<(W, Descriptor, T), E>,
    ) -> Result<(Self, T), E> {
        let failed = || Error::io("cannot write a layer into the archive");
        let Self { mut out, length, mut written } = self;
        out.write_all(&[0; BLOCK]).map_err(failed())?;
        let (out, Descriptor { digest, size, .. }, made) = fill(out)?;
        written.insert(digest);
        let mut archive = Self { out, length: length + BLOCK as u64 + size, written };
        archive.pad().map_err(failed())?;
        let header = header(&path(&digest), tar::EntryType::Regular, 0o444, size).map_err(failed())?;
        archive.out.amend(length, header.as_bytes()).map_err(failed())?;
        Ok((archive, made))
    }
}

fn header(name: &str, kind: tar::EntryType, mode: u32, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    // Blank number fields are no numbers to some readers.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
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
