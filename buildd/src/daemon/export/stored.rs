//! Images of the store, moved elsewhere: their layers as blobs, and what names these.

use cache::oci::{Descriptor, Document, Index, MANIFEST_LIMIT, Manifest, Reference, media_type};
use cache::store::{ImageRecord, Lease};
use solver::{Digest, ExecError, VertexContext};

use super::assemble::with_types;
use super::layers::{Form, LayerBlob};
use super::parcel::Parcel;
use super::push::Places;
use super::{AtRegistries, Exporter};
use crate::daemon::chains::from_store;
use crate::daemon::progress::Step;

/// An index stands where a manifest should.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no image's manifest")]
struct NoManifest(Digest);

impl Exporter {
    /// Makes sure of an image's blobs and returns the manifest that names them, or the index with what is said of it.
    ///
    /// # Errors
    /// A base layer that no registry gives any more, a full disk.
    pub(crate) async fn with_blobs(
        &self,
        record: &ImageRecord,
        form: Form,
        cx: &VertexContext,
    ) -> Result<Descriptor, ExecError> {
        Ok(self.stored(record, form, cx).await?.target)
    }

    /// Pushes an image of the store under `to`, and returns the digest that it has there.
    ///
    /// # Errors
    /// As [`Self::with_blobs`], and a registry that refuses.
    pub(crate) async fn push_stored(
        &self,
        to: &Reference,
        record: &ImageRecord,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<Digest, ExecError> {
        let parcel = step.part("exporting layers", self.stored(record, Form::compressed(), cx)).await?;
        let blobs = self.layer_blobs(Form::compressed(), &cx.build);
        let from = Places { blobs: &blobs, others: &AtRegistries::default() };
        self.push_names(std::slice::from_ref(to), false, &parcel, &from, step, cx).await?;
        Ok(parcel.target.digest)
    }

    async fn stored(
        &self,
        record: &ImageRecord,
        form: Form,
        cx: &VertexContext,
    ) -> Result<Parcel, ExecError> {
        if let Some(index) = self.attested_index(record)? {
            return self.attested_parcel(record, index, form, cx).await;
        }
        let blobs = self.layer_blobs(form, &cx.build);
        let layers = blobs.of_chain(&record.layers, cx).await?;
        let size = self.chains.store.blobs().size(&record.config).map_err(from_store)?;
        let config = Descriptor::new(media_type::OCI_CONFIG, record.config, size.unwrap_or_default());
        let described: Vec<Descriptor> = layers.iter().map(|l| with_types(&l.descriptor, true)).collect();
        let manifest = Manifest::new(config.clone(), described.clone());
        let manifest = self.keep(&blobs.lease, media_type::OCI_MANIFEST, &manifest.to_json())?;
        let blobs = described.into_iter().chain([config]).collect();
        Ok(Parcel::new(manifest, Vec::new(), blobs).with_layers(layers))
    }

    /// The index that an image's name stands for, if it holds statements about the image.
    fn attested_index(&self, record: &ImageRecord) -> Result<Option<Index>, ExecError> {
        if record.target.digest == record.manifest {
            return Ok(None);
        }
        let document = self.document(&record.target.digest, &record.target.media_type)?;
        let Document::Index(index) = document else { return Ok(None) };
        Ok(index.manifests.iter().any(|entry| entry.is_about(&record.manifest)).then_some(*index))
    }

    /// An image with the statements about it, which name its manifest: nothing of it may change. Images of other
    /// machines go along where they are here.
    async fn attested_parcel(
        &self,
        record: &ImageRecord,
        index: Index,
        form: Form,
        cx: &VertexContext,
    ) -> Result<Parcel, ExecError> {
        let blobs = self.layer_blobs(form, &cx.build);
        let Document::Manifest(manifest) = self.document(&record.manifest, "")? else {
            return Err(ExecError::failed(NoManifest(record.manifest)));
        };
        let known = record.layers.iter().zip(&record.diff_ids);
        for ((&id, &diff_id), descriptor) in known.zip(&manifest.layers) {
            let layer =
                LayerBlob { id, diff_id, descriptor: descriptor.clone(), created_ms: 0, elsewhere: false };
            blobs.exactly(&layer, cx).await?;
        }
        let mut whole = Vec::new();
        for entry in &index.manifests {
            if let Some(blobs) = self.whole(record, entry, &blobs.lease)? {
                whole.push((entry, blobs));
            }
        }
        let has = |digest: &Digest| whole.iter().any(|(entry, _)| entry.digest == *digest);
        if !has(&record.manifest) {
            return Err(from_store(cache::store::StoreError::BlobMissing(record.manifest)));
        }
        let there = |entry: &&Descriptor| match entry.about() {
            Some(image) => has(&entry.digest) && has(&image),
            None => has(&entry.digest),
        };
        let manifests: Vec<Descriptor> = index.manifests.iter().filter(there).cloned().collect();
        let target = match manifests.len() == index.manifests.len() {
            true => {
                let target = &record.target;
                Descriptor::new(&target.media_type, target.digest, target.size)
            }
            false => {
                let index = Index { manifests: manifests.clone(), ..index.clone() };
                self.keep(&blobs.lease, &record.target.media_type, &index.to_json())?
            }
        };
        let below =
            whole.iter().filter(|(entry, _)| manifests.iter().any(|kept| kept.digest == entry.digest));
        let blobs = below.flat_map(|(_, blobs)| blobs).cloned().collect();
        Ok(Parcel::new(target, manifests, blobs))
    }

    /// What a manifest names, if all of that is here for this image; it becomes held. That others keep something by the same
    /// digest is no reason to hand it on: an index may name whatever its author has heard of.
    fn whole(
        &self,
        record: &ImageRecord,
        entry: &Descriptor,
        lease: &Lease,
    ) -> Result<Option<Vec<Descriptor>>, ExecError> {
        let is_main = entry.digest == record.manifest;
        let is_its_own = |digest: &Digest| is_main || record.blobs.contains(digest);
        if !is_its_own(&entry.digest) {
            return Ok(None);
        }
        let store = self.chains.store.blobs();
        if store.hold(lease, &entry.digest).map_err(from_store)?.is_none() {
            return Ok(None);
        }
        let Document::Manifest(manifest) = self.document(&entry.digest, &entry.media_type)? else {
            return Ok(None);
        };
        let named: Vec<Descriptor> = manifest.layers.into_iter().chain([manifest.config]).collect();
        for blob in &named {
            if !is_its_own(&blob.digest) || store.hold(lease, &blob.digest).map_err(from_store)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(named))
    }

    /// A document of the store.
    fn document(&self, digest: &Digest, media_type: &str) -> Result<Document, ExecError> {
        let bytes = self.chains.store.blobs().read(digest, MANIFEST_LIMIT).map_err(from_store)?;
        Document::parse(&bytes, Some(media_type)).map_err(ExecError::failed)
    }
}
