//! Config, manifest and index of a result.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use cache::oci::{ANNOTATION_CREATED, Descriptor, Index, Manifest, media_type};
use cache::remote::{CacheManifest, INLINE_FIELD};
use cache::store::{BlobPurpose, Lease};
use frontend::config::{ContainerConfig, History, ImageConfig, RootFs};
use solver::{Digest, ExecError, LayerId, VertexContext};

use super::annotations::Place;
use super::attested::Attested;
use super::layers::{LayerBlob, LayerBlobs, Rewrite};
use super::parcel::Parcel;
use super::{Built, ExportRequest, Exporter, Results};
use crate::daemon::chains::from_store;
use crate::daemon::progress::Step;
use crate::daemon::sources::image::oci_platform;

/// Documents of a result, stored as blobs.
#[derive(Debug, Clone)]
pub(super) struct Assembled {
    /// What names stand for: the index, or the only manifest.
    pub(super) target: Descriptor,
    /// One per platform.
    pub(super) images: Vec<AssembledImage>,
    /// What is told of them.
    pub(super) attested: Vec<Attested>,
}

/// One platform's documents.
#[derive(Debug, Clone)]
pub(super) struct AssembledImage {
    pub(super) manifest: Descriptor,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<LayerBlob>,
    pub(super) platform: String,
    pub(super) created_ms: u64,
}

impl Exporter {
    pub(super) async fn assemble(
        &self,
        request: &ExportRequest,
        results: &Results,
        blobs: &LayerBlobs,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<Assembled, ExecError> {
        let mut images = Vec::new();
        let mut attested = Vec::new();
        for built in &results.built {
            let layers = match request.rewritten(built) {
                None => {
                    let layers = blobs.of_chain(&built.output.chain, cx);
                    step.part("exporting layers", layers).await?
                }
                Some(seconds) => {
                    let base = base_diff_ids(built);
                    let rewritten = Rewrite { base: &base, compression: request.compression, seconds };
                    let layers = blobs.rewritten(&built.output.chain, rewritten, cx);
                    step.part(&format!("rewriting layers with source-date-epoch {seconds}"), layers).await?
                }
            };
            let image = self.image_documents(request, built, layers, &blobs.lease)?;
            for (what, d) in [("manifest", &image.manifest), ("config", &image.config)] {
                step.part(&format!("exporting {what} {}", d.digest), async { Ok::<_, ExecError>(()) })
                    .await?;
            }
            let claims = self.told(built, Some(&image)).await?;
            let multi_platform = results.multi_platform;
            let made = self.attested(request, built, &claims, multi_platform, &image, &blobs.lease)?;
            if let Some(made) = made {
                let name = format!("exporting attestation manifest {}", made.manifest.digest);
                step.part(&name, async { Ok::<_, ExecError>(()) }).await?;
                attested.push(made);
            }
            images.push(image);
        }
        let for_index = request.annotations.of(Place::Index, None);
        let mut target = match images.as_slice() {
            [only] if !results.multi_platform && attested.is_empty() => {
                if !for_index.is_empty() {
                    return Err(ExecError::failed(NoIndex));
                }
                only.manifest.clone()
            }
            all => {
                let manifests = all.iter().map(|i| &i.manifest).chain(attested.iter().map(|a| &a.manifest));
                let index = Index::new(manifests.cloned().collect());
                let kind = if request.oci_types { media_type::OCI_INDEX } else { media_type::DOCKER_INDEX };
                let index = Index { media_type: Some(kind.to_owned()), annotations: for_index, ..index };
                let mut target = self.keep(&blobs.lease, kind, &index.to_json())?;
                let name = format!("exporting manifest list {}", target.digest);
                step.part(&name, async { Ok::<_, ExecError>(()) }).await?;
                target.annotations = request.annotations.of(Place::IndexDescriptor, None);
                target
            }
        };
        // With a time of its own an image is the same however often it is made.
        let created = match results.built.first().and_then(|built| request.time(built)) {
            Some(seconds) => seconds.max(0) as u64 * 1000,
            None => images.iter().map(|image| image.created_ms).max().unwrap_or_default(),
        };
        target.annotations.entry(ANNOTATION_CREATED.to_owned()).or_insert_with(|| rfc3339(created));
        Ok(Assembled { target, images, attested })
    }

    fn image_documents(
        &self,
        request: &ExportRequest,
        built: &Built,
        layers: Vec<LayerBlob>,
        lease: &Lease,
    ) -> Result<AssembledImage, ExecError> {
        let mut config = finish_config(built, request.time(built), &layers);
        if let Some(cache) = inline_cache(built, &layers) {
            config.extra.insert(INLINE_FIELD.to_owned(), cache.into());
        }
        let created_ms = newest_ms(built, &layers).unwrap_or_default();
        let json = serde_json::to_vec(&config).map_err(ExecError::failed)?;
        let types = match request.oci_types {
            true => (media_type::OCI_CONFIG, media_type::OCI_MANIFEST),
            false => (media_type::DOCKER_CONFIG, media_type::DOCKER_MANIFEST),
        };
        let config = self.keep(lease, types.0, &json)?;
        let descriptors = layers.iter().map(|l| with_types(&l.descriptor, request.oci_types)).collect();
        let platform = oci_platform(&built.platform).full();
        let annotations = |place| request.annotations.of(place, Some(&platform));
        let manifest = Manifest {
            media_type: Some(types.1.to_owned()),
            annotations: annotations(Place::Manifest),
            ..Manifest::new(config.clone(), descriptors)
        };
        let mut manifest = self.keep(lease, types.1, &manifest.to_json())?;
        manifest.platform = Some(oci_platform(&built.platform));
        manifest.annotations = annotations(Place::ManifestDescriptor);
        Ok(AssembledImage { manifest, config, layers, platform, created_ms })
    }

    /// Stores a document as a blob.
    ///
    /// # Errors
    /// A full disk.
    pub(in crate::daemon) fn keep(
        &self,
        lease: &Lease,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, ExecError> {
        let purpose = BlobPurpose { description: media_type.to_owned(), ..BlobPurpose::default() };
        let digest = self.chains.store.blobs().put(lease, bytes, purpose).map_err(from_store)?;
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    }
}

impl Assembled {
    /// What the client is told, under BuildKit's names.
    pub(super) fn response(&self, request: &ExportRequest) -> BTreeMap<String, String> {
        let mut response =
            BTreeMap::from([("containerimage.digest".to_owned(), self.target.digest.to_string())]);
        if let [only] = self.images.as_slice()
            && only.manifest.digest == self.target.digest
        {
            response.insert("containerimage.config.digest".to_owned(), only.config.digest.to_string());
        }
        if let Ok(json) = serde_json::to_vec(&self.target) {
            let text = base64::engine::general_purpose::STANDARD.encode(json);
            response.insert("containerimage.descriptor".to_owned(), text);
        }
        if !request.names.is_empty() {
            let names: Vec<String> = request.names.iter().map(ToString::to_string).collect();
            response.insert("image.name".to_owned(), names.join(","));
        }
        response
    }

    /// The layers of the image for this machine, or of the first one.
    pub(super) fn main(&self) -> Option<&AssembledImage> {
        let host = cache::oci::Platform::host().to_string();
        self.images.iter().find(|i| i.platform == host).or_else(|| self.images.first())
    }

    /// The blob of a layer.
    pub(super) fn descriptor(&self, id: &LayerId) -> Option<&Descriptor> {
        self.images.iter().flat_map(|i| &i.layers).find(|l| l.id == *id).map(|l| &l.descriptor)
    }

    /// What of it goes elsewhere.
    pub(super) fn parcel(&self) -> Parcel {
        let images = self
            .images
            .iter()
            .flat_map(|image| image.layers.iter().map(|layer| &layer.descriptor).chain([&image.config]));
        let attested = self.attested.iter().flat_map(|attested| &attested.blobs);
        let blobs = images.chain(attested).cloned().collect();
        let images = self.images.iter().map(|image| &image.manifest);
        let attested = self.attested.iter().map(|attested| &attested.manifest);
        let below = images.chain(attested).filter(|manifest| manifest.digest != self.target.digest);
        let parcel = Parcel::new(self.target.clone(), below.cloned().collect(), blobs);
        parcel.with_layers(self.images.iter().flat_map(|image| &image.layers).cloned())
    }

    /// All blobs but the target's own.
    pub(super) fn other_documents(&self) -> Vec<Digest> {
        let attested = self.attested.iter().flat_map(|a| a.blobs.iter().chain([&a.manifest]));
        let images = self.images.iter().flat_map(|i| [&i.manifest, &i.config]);
        images.chain(attested).map(|descriptor| descriptor.digest).collect()
    }

    /// The layers of all images.
    pub(super) fn layer_ids(&self) -> Vec<LayerId> {
        self.images.iter().flat_map(|i| i.layers.iter().map(|l| l.id)).collect()
    }
}

/// An index is annotated that is not made.
#[derive(Debug, thiserror::Error)]
#[error("index annotations not supported for single platform export")]
struct NoIndex;

/// The config with diff IDs and times. Times are those of the layers, so a build from the cache gives the same image.
fn finish_config(built: &Built, epoch: Option<i64>, layers: &[LayerBlob]) -> ImageConfig {
    let mut config = built.config.clone().unwrap_or_else(|| ImageConfig {
        architecture: built.platform.architecture.clone(),
        variant: built.platform.variant.clone(),
        os: built.platform.os.clone(),
        config: ContainerConfig::default(),
        ..ImageConfig::default()
    });
    config.rootfs =
        RootFs { diff_ids: layers.iter().map(|l| l.diff_id.to_string()).collect(), ..RootFs::default() };
    let at = epoch.map(|s| rfc3339(s.max(0) as u64 * 1000));
    let clamp = |time: &mut String| {
        if let (Some(at), true) = (&at, is_later(time, epoch)) {
            time.clone_from(at);
        }
    };
    let mut upcoming = layers.iter();
    let mut last = layers.first().map(|l| l.created_ms);
    for (i, entry) in config.history.iter_mut().enumerate() {
        if !entry.empty_layer {
            last = upcoming.next().map(|l| l.created_ms).or(last);
        }
        match &mut entry.created {
            Some(time) if i >= built.inherited => clamp(time),
            Some(_) => {}
            None => entry.created = at.clone().or_else(|| last.map(rfc3339)),
        }
    }
    // A result with more layers than its history tells of, as of a graph without a frontend.
    for layer in upcoming {
        let created = at.clone().or_else(|| Some(rfc3339(layer.created_ms)));
        config.history.push(History {
            created,
            comment: "buildkit.exporter.image.v0".to_owned(),
            ..History::default()
        });
    }
    let newest = newest_ms(built, layers);
    match &mut config.created {
        Some(time) => clamp(time),
        None => config.created = at.or_else(|| newest.map(rfc3339)).or(Some(rfc3339(0))),
    }
    config
}

/// Whether a time is later than `epoch`, in seconds since 1970, or none at all.
fn is_later(time: &str, epoch: Option<i64>) -> bool {
    time.parse::<jiff::Timestamp>().map_or(true, |time| Some(time.as_second()) >= epoch)
}

/// The cache that goes into an image with these layers.
fn inline_cache(built: &Built, layers: &[LayerBlob]) -> Option<String> {
    let graph = built.cache.as_ref()?;
    let by_id = layers.iter().map(|layer| (layer.id, layer.clone())).collect();
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.descriptor.digest).collect();
    CacheManifest::to_inline(&graph.chains(&by_id), &digests)
}

/// When the newest layer was made. Those of the base image count only where there are no others: their time here is that of a pull.
fn newest_ms(built: &Built, layers: &[LayerBlob]) -> Option<u64> {
    let base = base_diff_ids(built);
    let inherited = layers.iter().zip(&base).take_while(|(layer, base)| layer.diff_id == **base).count();
    let own = if inherited < layers.len() { &layers[inherited..] } else { layers };
    own.iter().map(|layer| layer.created_ms).max()
}

/// The layers of the base image, as its config tells them.
fn base_diff_ids(built: &Built) -> Vec<Digest> {
    let base = built.config.iter().flat_map(|config| &config.rootfs.diff_ids);
    base.map_while(|diff_id| diff_id.parse().ok()).collect()
}

/// A time in milliseconds since 1970 as RFC 3339 has it.
pub(in crate::daemon) fn rfc3339(ms: u64) -> String {
    jiff::Timestamp::try_from(UNIX_EPOCH + Duration::from_millis(ms))
        .map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |t| t.to_string())
}

/// The same blob under the other family's media type.
pub(in crate::daemon) fn with_types(d: &Descriptor, oci: bool) -> Descriptor {
    const PAIRS: [(&str, &str); 3] = [
        (media_type::OCI_LAYER, media_type::DOCKER_LAYER),
        (media_type::OCI_LAYER_GZIP, media_type::DOCKER_LAYER_GZIP),
        (media_type::OCI_LAYER_ZSTD, media_type::DOCKER_LAYER_ZSTD),
    ];
    // What is written has the layer itself, wherever others get theirs.
    let own = media_type::distributable(&d.media_type);
    let pair = PAIRS.iter().find(|(a, b)| own == *a || own == *b);
    let media_type = pair.map_or(&own[..], |(a, b)| if oci { a } else { b });
    Descriptor { media_type: media_type.to_owned(), ..d.clone() }
}
