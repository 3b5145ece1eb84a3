//! Images of the store, moved elsewhere: their layers as blobs, and a manifest that names these.

use cache::oci::{Descriptor, Manifest, Reference, media_type};
use cache::store::ImageRecord;
use solver::{Digest, ExecError, VertexContext};

use super::Exporter;
use super::assemble::{Assembled, AssembledImage, with_types};
use super::layers::Form;
use crate::daemon::chains::from_store;
use crate::daemon::progress::Step;

impl Exporter {
    /// Makes sure of an image's blobs and returns the manifest that names them.
    ///
    /// # Errors
    /// A base layer that no registry gives any more, a full disk.
    pub(crate) async fn with_blobs(
        &self,
        record: &ImageRecord,
        form: Form,
        cx: &VertexContext,
    ) -> Result<Descriptor, ExecError> {
        Ok(self.stored(record, form, cx).await?.manifest)
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
        let image = step.part("exporting layers", self.stored(record, Form::compressed(), cx)).await?;
        let made = Assembled { target: image.manifest.clone(), images: vec![image], attested: Vec::new() };
        self.push_names(std::slice::from_ref(to), false, &made, step, cx).await?;
        Ok(made.target.digest)
    }

    async fn stored(
        &self,
        record: &ImageRecord,
        form: Form,
        cx: &VertexContext,
    ) -> Result<AssembledImage, ExecError> {
        let blobs = self.layer_blobs(form, &cx.build);
        let layers = blobs.of_chain(&record.layers, cx).await?;
        let size = self.chains.store.blobs().size(&record.config).map_err(from_store)?;
        let config = Descriptor::new(media_type::OCI_CONFIG, record.config, size.unwrap_or_default());
        let descriptors = layers.iter().map(|l| with_types(&l.descriptor, true)).collect();
        let manifest = Manifest::new(config.clone(), descriptors);
        let manifest = self.keep(&blobs.lease, media_type::OCI_MANIFEST, &manifest.to_json())?;
        Ok(AssembledImage {
            manifest,
            config,
            layers,
            platform: record.platform.clone(),
            created_ms: record.created_ms,
        })
    }
}
