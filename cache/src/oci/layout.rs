//! Reading OCI image layouts, from a directory or a tar archive.
//!
//! Source: OCI image specification 1.1, `image-layout.md`. A layout is outside data: nothing in it
//! becomes a path but digests, symbolic links are not followed, and every blob is verified.

use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::OFlags;
use serde::Deserialize;
use solver::Digest;

use super::archive::{self, ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME};
use super::document::MANIFEST_LIMIT;
use super::tar_index::TarIndex;
use super::{Descriptor, Document, Error, Index, Platform, Reference, ResolvedImage, Search, VerifiedReader};

/// An OCI image layout that can be read.
#[derive(Debug)]
pub struct Layout {
    store: Store,
    index: Index,
}

#[derive(Debug)]
enum Store {
    Directory(PathBuf),
    Tar(TarIndex),
}

/// A file of a layout and its size in bytes.
type Opened = (Box<dyn Read + Send>, u64);

/// The content of `oci-layout`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl Layout {
    /// Opens the layout directory or tar archive at `path`.
    ///
    /// # Errors
    /// [`Error::Layout`] when it is none, [`Error::Io`] when it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let store = match path.is_dir() {
            true => Store::Directory(path.to_owned()),
            false => Store::Tar(TarIndex::open(path)?),
        };
        Self::from_store(store)
    }

    /// The layout in an archive that is already indexed.
    pub(super) fn from_tar(index: TarIndex) -> Result<Self, Error> {
        Self::from_store(Store::Tar(index))
    }

    fn from_store(store: Store) -> Result<Self, Error> {
        let bad =
            |reason: &str| Error::Layout { origin: store.origin().to_owned(), reason: reason.to_owned() };
        let marker = store.read_file("oci-layout")?.ok_or_else(|| bad("it has no `oci-layout`"))?;
        let marker: Marker = serde_json::from_slice(&marker).map_err(|_| bad("`oci-layout` is malformed"))?;
        if !marker.image_layout_version.starts_with("1.") {
            return Err(bad("its version is not 1"));
        }
        let index = store.read_file("index.json")?.ok_or_else(|| bad("it has no `index.json`"))?;
        match Document::parse(&index, None)? {
            Document::Index(index) => Ok(Self { store, index: *index }),
            Document::Manifest(_) => Err(bad("`index.json` is not an index")),
        }
    }

    /// The directory or archive.
    pub fn origin(&self) -> &Path {
        self.store.origin()
    }

    /// The images in it.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The full names in it, each with its image. Names that are malformed are left out.
    pub fn names(&self) -> Vec<(Reference, &Descriptor)> {
        let named = |entry: &Descriptor| {
            let name = entry.annotations.get(ANNOTATION_IMAGE_NAME)?;
            Reference::parse(name).ok()
        };
        self.index.manifests.iter().filter_map(|entry| Some((named(entry)?, entry))).collect()
    }

    /// The image with a tag, full name or digest; without one the only image.
    ///
    /// # Errors
    /// [`Error::MissingImage`].
    pub fn find(&self, name: Option<&str>) -> Result<Descriptor, Error> {
        let images = || self.index.manifests.iter().filter(|entry| !entry.is_attestation());
        let missing =
            |name: &str| Error::MissingImage { name: name.to_owned(), origin: self.origin().to_owned() };
        let Some(name) = name else {
            let mut all = images();
            let first = all.next().ok_or_else(|| missing("latest"))?;
            return match all.all(|other| other.digest == first.digest) {
                true => Ok(first.clone()),
                false => self.find(Some("latest")),
            };
        };
        let named = |entry: &&Descriptor| {
            [ANNOTATION_REF_NAME, ANNOTATION_IMAGE_NAME]
                .iter()
                .any(|key| entry.annotations.get(*key).is_some_and(|value| value == name))
        };
        if let Some(found) = images().find(named) {
            return Ok(found.clone());
        }
        let digest: Digest = name.parse().map_err(|_| missing(name))?;
        if let Some(found) = images().find(|entry| entry.digest == digest) {
            return Ok(found.clone());
        }
        let size = self.store.open_blob(&digest)?.ok_or_else(|| missing(name))?.1;
        let bytes = self.store.read_verified(&digest, size, MANIFEST_LIMIT, "manifest")?;
        Ok(Descriptor::new(Document::parse(&bytes, None)?.media_type(), digest, size))
    }

    /// A manifest or index, verified.
    ///
    /// # Errors
    /// The blob is missing, too large, damaged, or no such document.
    pub fn document(&self, descriptor: &Descriptor) -> Result<(Vec<u8>, Document), Error> {
        let bytes =
            self.store.read_verified(&descriptor.digest, descriptor.size, MANIFEST_LIMIT, "manifest")?;
        let document = Document::parse(&bytes, Some(&descriptor.media_type))?;
        Ok((bytes, document))
    }

    /// The image for a platform below an entry.
    ///
    /// # Errors
    /// [`Error::NoPlatform`], or a document is missing or damaged.
    pub fn resolve(&self, target: &Descriptor, platform: &Platform) -> Result<ResolvedImage, Error> {
        let mut search =
            Search::new(target.digest, Some(target.media_type.clone()), Some(target.size), platform);
        loop {
            let wanted = search.wanted();
            let size = wanted.size.unwrap_or(target.size);
            let bytes =
                self.store.read_verified(&wanted.digest, size, wanted.part.limit(), wanted.part.name())?;
            if let Some(image) = search.give(bytes, None)? {
                return Ok(image);
            }
        }
    }

    /// Opens a blob; what is read is verified, and a wrong end is an error.
    ///
    /// # Errors
    /// [`Error::MissingBlob`], [`Error::SizeMismatch`].
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<VerifiedReader<Box<dyn Read + Send>>, Error> {
        self.store.open_verified(&descriptor.digest, descriptor.size)
    }
}

impl Store {
    fn origin(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Tar(index) => index.origin(),
        }
    }

    /// Opens a file by its name in the layout; its size in bytes comes with it.
    fn open_file(&self, name: &str) -> Result<Option<Opened>, Error> {
        let directory = match self {
            Self::Tar(index) => {
                return Ok(index.find(name).map(|section| {
                    let size = section.size();
                    (Box::new(section) as Box<dyn Read + Send>, size)
                }));
            }
            Self::Directory(directory) => directory,
        };
        let path = directory.join(name);
        let reading = |source| Error::Io { what: "cannot read the image layout".to_owned(), source };
        // No links out of the layout, and no waiting for the writer of a pipe.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
        let opened = fs_err::OpenOptions::new().read(true).custom_flags(flags as i32).open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(reading(error)),
        };
        let metadata = file.metadata().map_err(reading)?;
        if !metadata.is_file() {
            let reason = format!("`{name}` is not a regular file");
            return Err(Error::Layout { origin: directory.clone(), reason });
        }
        Ok(Some((Box::new(file), metadata.len())))
    }

    /// Reads a small file of the layout itself.
    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some((file, size)) = self.open_file(name)? else { return Ok(None) };
        if size > MANIFEST_LIMIT {
            return Err(Error::TooLarge { what: "image layout file", limit: MANIFEST_LIMIT });
        }
        let mut bytes = Vec::new();
        file.take(MANIFEST_LIMIT)
            .read_to_end(&mut bytes)
            .map_err(Error::io(format!("cannot read `{name}`")))?;
        Ok(Some(bytes))
    }

    fn open_blob(&self, digest: &Digest) -> Result<Option<Opened>, Error> {
        self.open_file(&archive::path(digest))
    }

    fn open_verified(
        &self,
        digest: &Digest,
        size: u64,
    ) -> Result<VerifiedReader<Box<dyn Read + Send>>, Error> {
        let missing = || Error::MissingBlob { digest: *digest, origin: self.origin().to_owned() };
        let (blob, actual) = self.open_blob(digest)?.ok_or_else(missing)?;
        if actual != size {
            return Err(Error::SizeMismatch { digest: *digest, expected: size, actual });
        }
        Ok(VerifiedReader::new(blob, *digest, size))
    }

    fn read_verified(
        &self,
        digest: &Digest,
        size: u64,
        limit: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, Error> {
        if size > limit {
            return Err(Error::TooLarge { what, limit });
        }
        let mut bytes = Vec::new();
        self.open_verified(digest, size)?
            .read_to_end(&mut bytes)
            .map_err(Error::io(format!("cannot read {what} `{digest}`")))?;
        Ok(bytes)
    }
}
