//! `load`: images out of an archive.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use cache::oci::{
    Decompressor, Descriptor, DockerArchive, DockerImage, Document, ImageArchive, Layout, Manifest,
    Reference, ResolvedImage, media_type, sniff,
};
use cache::store::{BlobPurpose, BlobRef, Lease, Staging};
use futures_util::{StreamExt, TryStreamExt};
use proto::rbuild::LoadImageRequest;
use solver::{Digest, ExecError, LayerId};
use tokio_util::io::{StreamReader, SyncIoBridge};
use tonic::{Status, Streaming};

use super::images::{ImagesService, nameless};
use super::naming;
use super::transfer::Work;
use crate::daemon::blocking::blocking;
use crate::daemon::chains::{Chains, from_store};
use crate::daemon::failure;
use crate::daemon::sources::image::attestations::{KEPT_LIMIT, Vouched};
use crate::daemon::sources::image::chain_of;
use crate::daemon::sources::image::place::{Arrived, Placing};
use crate::daemon::worker::UNPACK_LIMITS;

/// How many layers are unpacked at a time.
const AT_ONCE: usize = 3;
/// Bytes by which a layer's compression is told.
const MAGIC: u64 = 4;

/// The archive cannot be used.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("cannot receive the archive")]
    Receive(#[source] std::io::Error),
    #[error("the archive is longer than {0} bytes")]
    TooLong(u64),
    #[error("the archive holds no image")]
    Empty,
}

/// An image of an archive whose layers are in the store, and its names.
struct Loaded {
    image: ResolvedImage,
    layers: Arc<[LayerId]>,
    names: Vec<Reference>,
    /// What the archive says of it.
    vouched: Option<Vouched>,
}

/// What the images of one archive are read from and written to.
struct Loader {
    chains: Chains,
    lease: Lease,
}

/// Reads an archive, OCI layout or docker's form, compressed or not, and names its images.
///
/// # Errors
/// An archive that is none or is damaged, a full disk.
pub(super) async fn load(
    service: &ImagesService,
    chunks: Streaming<LoadImageRequest>,
) -> Result<Vec<String>, Status> {
    let work = Work::anonymous(&service.parts, &service.builds, "load", "");
    let loaded = tokio::select! {
        loaded = run(&work, chunks) => loaded,
        () = work.listed.cancel.cancelled() => Err(ExecError::Canceled),
    };
    let loaded = loaded.map_err(|e| Status::unknown(failure::text(&e)))?;
    work.parts.checkpoint_soon();
    Ok(loaded)
}

async fn run(work: &Work, chunks: Streaming<LoadImageRequest>) -> Result<Vec<String>, ExecError> {
    let parts = &work.parts;
    let loader = Arc::new(Loader { chains: parts.chains.clone(), lease: parts.leases.of(&work.id) });
    let staging = parts.store.layers().staging().map_err(from_store)?;
    let path = staging.path().join("archive");
    let bytes = chunks.map(|c| c.map(|c| c.data).map_err(std::io::Error::other));
    let bridge = SyncIoBridge::new(StreamReader::new(bytes));
    let archive = blocking(move || {
        let file = spool(bridge, &path)?;
        ImageArchive::read(file, Path::new("input")).map_err(ExecError::failed)
    });
    let images = match archive.await? {
        ImageArchive::Layout(layout) => loader.layout(Arc::from(layout)).await?,
        ImageArchive::Docker(docker) => loader.docker(Arc::new(docker)).await?,
    };
    let names = blocking(move || loader.name(&images)).await;
    drop(staging);
    names
}

/// Writes the archive to a file, decompressed, so that it can be read in any order.
fn spool(from: impl Read, to: &Path) -> Result<std::fs::File, ExecError> {
    let receive = |e| ExecError::failed(LoadError::Receive(e));
    let plain = Decompressor::new(from).map_err(receive)?;
    let open = fs_err::OpenOptions::new().read(true).write(true).create_new(true).open(to);
    let mut file = open.map_err(receive)?;
    let written = std::io::copy(&mut plain.take(UNPACK_LIMITS.bytes + 1), &mut file).map_err(receive)?;
    if written > UNPACK_LIMITS.bytes {
        return Err(ExecError::failed(LoadError::TooLong(UNPACK_LIMITS.bytes)));
    }
    Ok(file.into_parts().0)
}

impl Loader {
    async fn layout(self: &Arc<Self>, layout: Arc<Layout>) -> Result<Vec<Loaded>, ExecError> {
        let mut all: Vec<Loaded> = Vec::new();
        for InLayout { image, entry, names } in in_layout(&layout)? {
            let layers = chain_of(image.layers().map(|(_, diff_id)| diff_id));
            let missing = self.placing(&image, &layers).missing()?;
            let arrivals = missing.into_iter().map(|i| {
                let (this, layout, descriptor) =
                    (self.clone(), layout.clone(), image.manifest.layers[i].clone());
                blocking(move || {
                    let blob = layout.open_blob(&descriptor).map_err(ExecError::failed)?;
                    let (arrived, ..) = this.receive(blob, Some(&descriptor.digest))?;
                    Ok::<_, ExecError>((i, arrived))
                })
            });
            let arrived =
                futures_util::stream::iter(arrivals).buffer_unordered(AT_ONCE).try_collect().await?;
            let (this, from, about) = (self.clone(), layout.clone(), image.manifest_digest());
            let vouched = blocking(move || this.statements(&from, &entry, &about)).await?;
            let loaded = Loaded { image, layers, names, vouched };
            all.push(self.place(loaded, arrived).await?);
        }
        Ok(all)
    }

    /// Stores what the index behind an entry of a layout says of an image; `None` where that is nothing, or where some of
    /// it was left out of the layout. Blocking.
    fn statements(
        &self,
        layout: &Layout,
        entry: &Descriptor,
        image: &Digest,
    ) -> Result<Option<Vouched>, ExecError> {
        let (bytes, document) = layout.document(entry).map_err(ExecError::failed)?;
        let media_type = document.media_type().to_owned();
        let Document::Index(index) = document else { return Ok(None) };
        let mut all = Vec::new();
        for manifest in index.manifests.iter().filter(|manifest| manifest.is_about(image)) {
            let document = match layout.document(manifest) {
                Err(cache::oci::Error::MissingBlob { .. }) => return Ok(None),
                document => document.map_err(ExecError::failed)?.1,
            };
            let Document::Manifest(named) = document else { return Ok(None) };
            all.extend(named.layers.into_iter().chain([named.config]));
            all.push(manifest.clone());
        }
        if all.is_empty() || all.iter().any(|blob| blob.size > KEPT_LIMIT) {
            return Ok(None);
        }
        let blobs = self.chains.store.blobs();
        for blob in &all {
            let mut from = match layout.open_blob(blob) {
                Err(cache::oci::Error::MissingBlob { .. }) => return Ok(None),
                from => from.map_err(ExecError::failed)?,
            };
            let mut to = blobs.writer().map_err(from_store)?;
            std::io::copy(&mut from, &mut to).map_err(ExecError::failed)?;
            to.commit(&self.lease, Some(&blob.digest), described(&blob.media_type)).map_err(from_store)?;
        }
        let digest = blobs.put(&self.lease, &bytes, described(&media_type)).map_err(from_store)?;
        let index = BlobRef { media_type, digest, size: bytes.len() as u64 };
        Ok(Some(Vouched { index, blobs: all.iter().map(|blob| blob.digest).collect() }))
    }

    /// An image in docker's own form has no manifest: one is made of the layers as they are in the archive.
    async fn docker(self: &Arc<Self>, docker: Arc<DockerArchive>) -> Result<Vec<Loaded>, ExecError> {
        let mut all = Vec::new();
        for (at, image) in docker.images().iter().enumerate() {
            let arrivals = (0..image.layers.len()).map(|i| {
                let (this, docker) = (self.clone(), docker.clone());
                blocking(move || {
                    let layer =
                        docker.open_layer(&docker.images()[at].layers[i]).map_err(ExecError::failed)?;
                    this.docker_layer(i, layer)
                })
            });
            let arrivals = futures_util::stream::iter(arrivals).buffered(AT_ONCE);
            let layers: Vec<(usize, Arrived, Descriptor)> = arrivals.try_collect().await?;
            let descriptors = layers.iter().map(|(_, _, d)| d.clone()).collect();
            let resolved = with_manifest(image, descriptors);
            let arrived: Vec<_> = layers.into_iter().map(|(i, arrived, _)| (i, arrived)).collect();
            let layers = chain_of(resolved.layers().map(|(_, diff_id)| diff_id));
            let loaded = Loaded { image: resolved, layers, names: image.names.clone(), vouched: None };
            all.push(self.place(loaded, arrived).await?);
        }
        Ok(all)
    }

    fn docker_layer(
        &self,
        i: usize,
        mut layer: impl Read,
    ) -> Result<(usize, Arrived, Descriptor), ExecError> {
        let mut head = Vec::new();
        layer.by_ref().take(MAGIC).read_to_end(&mut head).map_err(ExecError::failed)?;
        let kind = match sniff(&head) {
            "gzip" => media_type::OCI_LAYER_GZIP,
            "zstd" => media_type::OCI_LAYER_ZSTD,
            _ => media_type::OCI_LAYER,
        };
        let (arrived, digest, size) = self.receive(head.chain(layer), None)?;
        Ok((i, arrived, Descriptor::new(kind, digest, size)))
    }

    fn receive(&self, from: impl Read, digest: Option<&Digest>) -> Result<(Arrived, Digest, u64), ExecError> {
        let staging: Staging = self.chains.store.layers().staging().map_err(from_store)?;
        Arrived::receive(&self.chains, staging, from, digest, &self.lease)
    }

    fn placing<'a>(&'a self, image: &'a ResolvedImage, layers: &'a [LayerId]) -> Placing<'a> {
        Placing { chains: &self.chains, image, layers, origin: None, lease: &self.lease }
    }

    async fn place(
        self: &Arc<Self>,
        loaded: Loaded,
        mut arrived: Vec<(usize, Arrived)>,
    ) -> Result<Loaded, ExecError> {
        arrived.sort_by_key(|(i, _)| *i);
        let this = self.clone();
        blocking(move || {
            this.placing(&loaded.image, &loaded.layers).place(arrived)?;
            Ok(loaded)
        })
        .await
    }

    /// Stores the documents and names the images; returns the names, or the ids of those that have none.
    fn name(&self, images: &[Loaded]) -> Result<Vec<String>, ExecError> {
        let store = &self.chains.store;
        let mut all = Vec::new();
        for Loaded { image, layers, names, vouched } in images {
            let manifest = (&image.manifest_bytes, &image.manifest_descriptor.media_type);
            for (bytes, kind) in [manifest, (&image.config_bytes, &image.manifest.config.media_type)] {
                store.blobs().put(&self.lease, bytes, described(kind)).map_err(from_store)?;
            }
            let record = naming::record(store, image, layers, vouched.clone(), &self.lease)?;
            let mut keys: Vec<String> =
                names.iter().map(|n| n.clone().with_default_tag().to_string()).collect();
            all.extend(names.iter().map(Reference::familiar));
            if keys.is_empty() {
                keys.push(nameless(&record));
                all.push(record.config.to_string());
            }
            for key in keys {
                store.images().put(&key, &record).map_err(from_store)?;
            }
        }
        Ok(all)
    }
}

/// What a document's blob is kept for.
fn described(media_type: &str) -> BlobPurpose {
    BlobPurpose { description: media_type.to_owned(), ..BlobPurpose::default() }
}

/// An image of a layout.
struct InLayout {
    image: ResolvedImage,
    /// What led to it.
    entry: Descriptor,
    names: Vec<Reference>,
}

/// The images of a layout for this machine, each with its names. One that is for other machines only comes as the
/// first of them.
fn in_layout(layout: &Layout) -> Result<Vec<InLayout>, ExecError> {
    let names = layout.names();
    let mut found: Vec<InLayout> = Vec::new();
    for entry in layout.index().manifests.iter().filter(|entry| !entry.is_attestation()) {
        let image = resolve(layout, entry).map_err(ExecError::failed)?;
        let of_entry = names.iter().filter(|(_, d)| std::ptr::eq(*d, entry)).map(|(name, _)| name.clone());
        match found.iter_mut().find(|known| known.image.digest == image.digest) {
            Some(known) => known.names.extend(of_entry),
            None => found.push(InLayout { image, entry: entry.clone(), names: of_entry.collect() }),
        }
    }
    if found.is_empty() { Err(ExecError::failed(LoadError::Empty)) } else { Ok(found) }
}

fn resolve(layout: &Layout, entry: &Descriptor) -> Result<ResolvedImage, cache::oci::Error> {
    let wanted = layout.resolve(entry, &cache::oci::Platform::host());
    let Err(cache::oci::Error::NoPlatform { .. }) = &wanted else { return wanted };
    let (_, document) = layout.document(entry)?;
    let Document::Index(index) = document else { return wanted };
    let other = index.manifests.iter().filter(|d| !d.is_attestation()).find_map(|d| d.platform.clone());
    match other {
        Some(platform) => layout.resolve(entry, &platform),
        None => wanted,
    }
}

fn with_manifest(image: &DockerImage, layers: Vec<Descriptor>) -> ResolvedImage {
    let config =
        Descriptor::new(media_type::OCI_CONFIG, image.config_digest, image.config_bytes.len() as u64);
    let manifest = Manifest::new(config, layers);
    let manifest_bytes = manifest.to_json();
    let manifest_descriptor = Descriptor::of(media_type::OCI_MANIFEST, &manifest_bytes);
    ResolvedImage {
        digest: manifest_descriptor.digest,
        manifest_descriptor,
        manifest_bytes,
        manifest,
        config_bytes: image.config_bytes.clone(),
        config: image.config.clone(),
    }
}

#[cfg(test)]
mod tests;
