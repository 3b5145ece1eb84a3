//! `type=image`: names in the image store, and pushes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use cache::oci::{CONFIG_LIMIT, Descriptor, MANIFEST_LIMIT, Reference, ResolvedImage};
use cache::store::{BlobRef, ImageRecord, LayerAbout, Lease, Origin};
use solver::{Digest, ExecError, LayerId, VertexContext};

use super::assemble::Assembled;
use super::layers::{Form, LayerBlobs};
use super::push::Places;
use super::{AtRegistries, ExportRequest, Exporter, Results};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::{Chains, from_store};
use crate::daemon::progress::Step;
use crate::daemon::sources::image::chain_of;
use crate::daemon::sources::image::place::{Arrived, Placing};

impl Exporter {
    pub(super) async fn image(
        &self,
        request: &ExportRequest,
        results: &Results,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<BTreeMap<String, String>, ExecError> {
        let rewritten = results.built.iter().any(|built| request.rewritten(built).is_some());
        let several = results.multi_platform;
        let attested = results.built.iter().any(|built| request.is_attested(built, several));
        let packing = request.packing();
        let indexed = request.push && packing.compression.is_indexed();
        // Of an image that is stored with what is said of it, all platforms have to be here.
        let whole = attested && several && (request.store || !request.push);
        let form = if rewritten || indexed || whole {
            Form::Blobs(packing)
        } else if request.push || attested {
            // What is pushed may be there already. Statements name a manifest, so that has to stay the one that is pushed some day.
            Form::Anywhere(packing)
        } else {
            // A name alone costs no compression.
            Form::AsIs
        };
        let mut layers = self.layer_blobs(form, &cx.build);
        layers.placed.extend(results.at_registries.layers.clone());
        let mut made = self.assemble(request, results, &layers, step, cx).await?;
        // Several machines push one platform each that way, and somebody puts them together under a tag.
        let tags = if request.push_by_digest || !request.store { &[][..] } else { &request.names };
        if (rewritten || indexed) && !tags.is_empty() {
            step.part("unpacking rewritten layers", self.unpack(&mut made, cx)).await?;
        }
        let left = made.layer_ids().iter().any(|id| results.at_registries.layers.contains_key(id));
        if request.push && left {
            self.push(request, results, &made, &layers, step, cx).await?;
            if let Some(from) = tags.first() {
                self.leave(&mut made, &results.at_registries, from, &layers.lease)?;
            }
        }
        for name in tags {
            step.part(&format!("naming to {name}"), async { self.name(name, &made, &layers.lease) }).await?;
        }
        if request.push && !left {
            self.push(request, results, &made, &layers, step, cx).await?;
        }
        Ok(made.response(request))
    }

    async fn push(
        &self,
        request: &ExportRequest,
        results: &Results,
        made: &Assembled,
        layers: &LayerBlobs,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let from = Places { blobs: layers, others: &results.at_registries };
        self.push_names(&request.names, request.push_by_digest, &made.parcel(), &from, step, cx).await
    }

    /// Has layers that are not here come from where they were pushed to, when somebody needs them. They get ids of their own: what a
    /// record of a cache says of them is nobody else's business.
    fn leave(
        &self,
        made: &mut Assembled,
        left: &AtRegistries,
        from: &Reference,
        lease: &Lease,
    ) -> Result<(), ExecError> {
        for image in &mut made.images {
            let manifest = image.manifest.digest;
            for layer in image.layers.iter_mut().filter(|layer| left.layers.contains_key(&layer.id)) {
                let Descriptor { media_type, digest, size, .. } = layer.descriptor.clone();
                let about = LayerAbout {
                    diff_id: Some(layer.diff_id),
                    origin: Some(Origin {
                        reference: from.to_string(),
                        blob: BlobRef { digest, size, media_type },
                    }),
                    description: format!("pushed to {from}"),
                    created_ms: Some(layer.created_ms),
                    ..LayerAbout::default()
                };
                let id = LayerId(Digest::of(format!("pushed {manifest} {}", layer.id).as_bytes()));
                self.chains.store.layers().declare(lease, &id, about).map_err(from_store)?;
                layer.id = id;
            }
        }
        Ok(())
    }

    /// Brings images into the store whose layers there are others: the store names layers by their files, times included.
    async fn unpack(&self, made: &mut Assembled, cx: &VertexContext) -> Result<(), ExecError> {
        for image in &mut made.images {
            let (chains, lease) = (self.chains.clone(), self.images.lease(&cx.build));
            let (manifest, config) = (image.manifest.clone(), image.config.digest);
            let ids = blocking(move || {
                let resolved = resolved(&chains, manifest, &config)?;
                let ids = chain_of(resolved.layers().map(|(_, diff_id)| diff_id));
                let placing =
                    Placing { chains: &chains, image: &resolved, layers: &ids, origin: None, lease: &lease };
                let mut arrived = Vec::new();
                for at in placing.missing()? {
                    let blob = resolved.manifest.layers[at].digest;
                    let damaged = || ExecError::Changed { path: blob.to_string() };
                    arrived.push((at, Arrived::of_blob(&chains, &blob)?.ok_or_else(damaged)?));
                }
                placing.place(arrived)?;
                Ok::<_, ExecError>(ids)
            });
            for (layer, id) in image.layers.iter_mut().zip(ids.await?.iter()) {
                layer.id = *id;
            }
        }
        Ok(())
    }

    fn name(&self, name: &Reference, made: &Assembled, lease: &Lease) -> Result<(), ExecError> {
        let store = &self.chains.store;
        let Some(main) = made.main() else { return Ok(()) };
        let mut size = 0;
        for id in made.layer_ids() {
            let info = store.layers().hold(lease, &id).map_err(from_store)?;
            size += info.map_or(0, |l| l.size);
        }
        let mut blobs = made.other_documents();
        // The name keeps the layers of one platform; of the others only the blobs are wanted.
        let others = made.images.iter().filter(|image| image.manifest.digest != main.manifest.digest);
        for layer in others.flat_map(|image| &image.layers).filter(|_| !made.attested.is_empty()) {
            let digest = layer.descriptor.digest;
            blobs.extend(store.blobs().hold(lease, &digest).map_err(from_store)?.map(|_| digest));
        }
        let record = ImageRecord {
            target: BlobRef {
                media_type: made.target.media_type.clone(),
                digest: made.target.digest,
                size: made.target.size,
            },
            manifest: main.manifest.digest,
            config: main.config.digest,
            layers: main.layers.iter().map(|l| l.id).collect(),
            diff_ids: main.layers.iter().map(|l| l.diff_id).collect(),
            blobs,
            platform: main.platform.clone(),
            created_ms: main.created_ms,
            tagged_ms: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |d| d.as_millis() as u64),
            size,
        };
        store.images().put(&name.to_string(), &record).map_err(from_store)
    }
}

/// An image whose documents and blobs are in the store. Blocking.
fn resolved(chains: &Chains, manifest: Descriptor, config: &Digest) -> Result<ResolvedImage, ExecError> {
    let blobs = chains.store.blobs();
    let manifest_bytes = blobs.read(&manifest.digest, MANIFEST_LIMIT).map_err(from_store)?;
    let config_bytes = blobs.read(config, CONFIG_LIMIT).map_err(from_store)?;
    Ok(ResolvedImage {
        digest: manifest.digest,
        manifest: serde_json::from_slice(&manifest_bytes).map_err(ExecError::failed)?,
        config: serde_json::from_slice(&config_bytes).map_err(ExecError::failed)?,
        manifest_descriptor: manifest,
        manifest_bytes,
        config_bytes,
    })
}
