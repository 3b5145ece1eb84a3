//! Reading what `docker save` wrote before it wrote OCI layouts: `manifest.json`, configs and layer tars.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use solver::Digest;

use super::tar_index::TarIndex;
use super::{CONFIG_LIMIT, Error, ImageMetadata, Layout, MANIFEST_LIMIT, Reference};

/// An image archive of either kind.
#[derive(Debug)]
pub enum ImageArchive {
    /// An OCI layout; archives that are both count as this.
    Layout(Box<Layout>),
    /// A Docker archive without one.
    Docker(DockerArchive),
}

impl ImageArchive {
    /// Opens the tar archive, or the directory of an OCI layout, at `path`.
    ///
    /// # Errors
    /// [`Error::Layout`] when it is neither kind.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return Ok(Self::Layout(Box::new(Layout::open(path)?)));
        }
        Self::of_index(TarIndex::open(path)?)
    }

    /// Reads the tar archive `file`, which errors call `origin`.
    ///
    /// # Errors
    /// [`Error::Layout`] when it is neither kind.
    pub fn read(file: std::fs::File, origin: &Path) -> Result<Self, Error> {
        Self::of_index(TarIndex::read(file, origin.to_owned())?)
    }

    fn of_index(index: TarIndex) -> Result<Self, Error> {
        if index.find("oci-layout").is_some() && index.find("index.json").is_some() {
            return Ok(Self::Layout(Box::new(Layout::from_tar(index)?)));
        }
        DockerArchive::from_tar(index).map(Self::Docker)
    }
}

/// An archive in Docker's own format.
#[derive(Debug)]
pub struct DockerArchive {
    index: TarIndex,
    images: Vec<DockerImage>,
}

/// An image in a Docker archive.
#[derive(Clone, Debug)]
pub struct DockerImage {
    /// Its names.
    pub names: Vec<Reference>,
    /// The digest of its config.
    pub config_digest: Digest,
    /// The config's own bytes.
    pub config_bytes: Vec<u8>,
    /// The config, parsed.
    pub config: ImageMetadata,
    /// Its layers, lowest first.
    pub layers: Vec<DockerLayer>,
}

/// A layer in a Docker archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerLayer {
    /// The digest that its plain tar must have; whoever unpacks it verifies that.
    pub diff_id: Digest,
    /// Bytes in the archive, possibly compressed.
    pub size: u64,
    name: String,
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default, deserialize_with = "super::lossless::null_is_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "super::lossless::null_is_default")]
    layers: Vec<String>,
}

impl DockerArchive {
    /// Opens the tar archive at `path`.
    ///
    /// # Errors
    /// [`Error::Layout`] when it is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::from_tar(TarIndex::open(path)?)
    }

    fn from_tar(index: TarIndex) -> Result<Self, Error> {
        let manifest = read(&index, "manifest.json", MANIFEST_LIMIT)?;
        let entries: Vec<Entry> = serde_json::from_slice(&manifest)
            .map_err(|source| Error::Json { what: "Docker archive manifest", source })?;
        let images = entries.iter().map(|entry| image(&index, entry)).collect::<Result<_, _>>()?;
        Ok(Self { index, images })
    }

    /// The images in it.
    pub fn images(&self) -> &[DockerImage] {
        &self.images
    }

    /// Opens a layer, as it is in the archive: plain or compressed.
    ///
    /// # Errors
    /// [`Error::Layout`] when the layer is of another archive.
    pub fn open_layer(&self, layer: &DockerLayer) -> Result<Box<dyn Read + Send>, Error> {
        let section = self.index.find(&layer.name).ok_or_else(|| missing(&self.index, &layer.name))?;
        Ok(Box::new(section))
    }
}

fn image(index: &TarIndex, entry: &Entry) -> Result<DockerImage, Error> {
    let config_bytes = read(index, &entry.config, CONFIG_LIMIT)?;
    let config = ImageMetadata::parse(&config_bytes)?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != entry.layers.len() {
        let reason = format!("it has {} layers and {} diff IDs", entry.layers.len(), diff_ids.len());
        return Err(Error::Layout { origin: index.origin().to_owned(), reason });
    }
    let layer = |(name, diff_id): (&String, &Digest)| {
        let section = index.find(name).ok_or_else(|| missing(index, name))?;
        Ok(DockerLayer { diff_id: *diff_id, size: section.size(), name: name.clone() })
    };
    let layers = entry.layers.iter().zip(diff_ids).map(layer).collect::<Result<_, Error>>()?;
    Ok(DockerImage {
        names: entry.repo_tags.iter().filter_map(|tag| Reference::parse(tag).ok()).collect(),
        config_digest: Digest::of(&config_bytes),
        config_bytes,
        config,
        layers,
    })
}

fn read(index: &TarIndex, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
    let section = index.find(name).ok_or_else(|| missing(index, name))?;
    if section.size() > limit {
        return Err(Error::TooLarge { what: "image archive file", limit });
    }
    let mut bytes = Vec::new();
    section.take(limit).read_to_end(&mut bytes).map_err(Error::io(format!("cannot read `{name}`")))?;
    Ok(bytes)
}

fn missing(index: &TarIndex, name: &str) -> Error {
    Error::Layout { origin: index.origin().to_owned(), reason: format!("it has no `{name}`") }
}
