//! Results leave the daemon: as named images, archives, directories, pushes.

mod annotations;
mod archive;
mod assemble;
mod attested;
mod attrs;
mod files;
mod image;
mod layers;
mod leaving;
mod packer;
mod parcel;
mod placed;
mod push;
mod settle;
mod sink;
mod stored;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cache::oci::Reference;
use cache::registry::Client;
use frontend::config::ImageConfig;
use solver::op::Platform;
use solver::{Digest, ExecError, LayerId, Output, VertexContext};

pub(super) use archive::write_stored;
pub(super) use assemble::{rfc3339, with_types};
pub(super) use attrs::{AttrError, EpochChoice, ExportKind, ExportRequest, compression_of};
pub(super) use layers::{Form, LayerBlob, LayerBlobs, Packing, layer_purpose, pack_apart};
pub(super) use leaving::{AllFiles, Entry, Leaving};
pub(super) use placed::Seen;
pub(super) use push::StoredBlob;

use super::blocking::blocking;
use super::chains::Chains;
use super::claims::{Claim, Scans, Told, told};
use super::diffids::DiffIds;
use super::metadata::Metadata;
use super::progress::Step;
use super::provenance::{Made, Provenance};
use super::remote_cache::CacheGraph;
use super::sources::image::ImageSource;
use crate::session::SessionManager;
use assemble::AssembledImage;

/// One platform's result.
#[derive(Debug, Clone)]
pub(super) struct Built {
    /// What it is for.
    pub platform: Platform,
    /// Its files; no chain is scratch.
    pub output: Output,
    /// How it is run; `None` where no frontend said so.
    pub config: Option<ImageConfig>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
    /// So many entries of the config's history are those of the image that it is built on.
    pub inherited: usize,
    /// How it came about; `None` where there was nothing to make.
    pub made: Option<Made>,
    /// What is told of how it came about, where that is asked for.
    pub provenance: Option<Arc<Provenance>>,
    /// The cache that goes into the image, where that is asked for.
    pub cache: Option<Arc<CacheGraph>>,
    /// What else is said of it, in files.
    pub claims: Vec<Claim<Option<Output>>>,
    /// What an SBOM of it is to cover besides.
    pub scans: Arc<Scans>,
    /// What this daemon found in it.
    pub sbom: Vec<Told>,
}

/// What a build made, for one or several platforms.
#[derive(Debug, Clone, Default)]
pub(super) struct Results {
    /// In the order asked for.
    pub built: Vec<Built>,
    /// The result is an index, even of one platform.
    pub multi_platform: bool,
    /// What a frontend said of it besides.
    pub metadata: Metadata,
    /// What of it registries have.
    pub at_registries: Arc<AtRegistries>,
}

/// What of a build's results registries have.
#[derive(Debug, Clone, Default)]
pub(super) struct AtRegistries {
    /// Layers that are not here, as all repositories have them that the results are pushed to.
    pub layers: HashMap<LayerId, LayerBlob>,
    /// Repositories that may have other layers as the results store them.
    pub repositories: Vec<Reference>,
}

impl AtRegistries {
    /// Whether a repository has a blob, or has it now from another one of the same registry, `origin` first.
    ///
    /// # Errors
    /// Why the registry could not be asked.
    pub(super) async fn has_or_mounts(
        &self,
        client: &Client,
        name: &Reference,
        digest: &Digest,
        origin: Option<&Reference>,
    ) -> Result<bool, cache::registry::Error> {
        if client.blob_exists(name, digest).await? {
            return Ok(true);
        }
        match self.beside_with(client, name, digest, origin).await {
            Some(from) => client.mount_blob(name, digest, from.path()).await,
            None => Ok(false),
        }
    }

    /// A repository at the registry of `name` that has a blob, as far as we may read it. Asking for a mount of what is not there would
    /// begin an upload.
    pub(super) async fn beside_with<'a>(
        &'a self,
        client: &Client,
        name: &'a Reference,
        digest: &Digest,
        origin: Option<&'a Reference>,
    ) -> Option<&'a Reference> {
        for from in self.beside(name, origin) {
            match client.blob_is_readable(from, digest).await {
                Ok(true) => return Some(from),
                Ok(false) => {}
                Err(error) => tracing::debug!("cannot ask {from} for a layer: {error}"),
            }
        }
        None
    }

    /// The repositories at the registry of `name` that may have layers, each once.
    fn beside<'a>(
        &'a self,
        name: &'a Reference,
        origin: Option<&'a Reference>,
    ) -> impl Iterator<Item = &'a Reference> {
        let mut seen = vec![name.path()];
        origin.into_iter().chain(&self.repositories).filter(move |from| {
            let new = from.domain() == name.domain() && !seen.contains(&from.path());
            seen.push(from.path());
            new
        })
    }
}

impl ExportRequest {
    /// The time that the documents of an image say; `None` where it is that of the layers.
    fn time(&self, built: &Built) -> Option<i64> {
        self.epoch.given().or(built.epoch)
    }

    /// The time that no file of a result may be later than; `None` where times stay.
    fn rewritten(&self, built: &Built) -> Option<i64> {
        self.epoch.apply(built.epoch).filter(|_| self.rewrite_timestamp)
    }
}

/// Hands results on.
#[derive(Debug, Clone)]
pub(super) struct Exporter {
    /// Layers and trees.
    pub chains: Chains,
    /// Base layers that were not pulled, and pushing.
    pub images: Arc<ImageSource>,
    /// Where archives go.
    pub sessions: Arc<SessionManager>,
    /// Files that clients passed.
    pub passed: Arc<super::side::Passed>,
    /// Hashes layers ahead.
    pub diff_ids: Arc<DiffIds>,
    /// Layers that went into archives without becoming blobs.
    pub seen: Arc<Seen>,
}

impl Exporter {
    /// Makes blobs of layers, for a build.
    pub(super) fn layer_blobs(&self, form: Form, build: &str) -> LayerBlobs {
        LayerBlobs {
            store: self.chains.store.clone(),
            images: self.images.clone(),
            diff_ids: self.diff_ids.clone(),
            form,
            lease: self.images.lease(build),
            placed: Default::default(),
        }
    }

    /// What is said of a result in files; of an image also which of its layers have the files that an SBOM lists.
    async fn told(&self, built: &Built, image: Option<&AssembledImage>) -> Result<Vec<Told>, ExecError> {
        if built.claims.is_empty() && built.sbom.is_empty() {
            return Ok(Vec::new());
        }
        let (chains, claims, output) = (self.chains.clone(), built.claims.clone(), built.output.clone());
        let sbom = built.sbom.clone();
        let layers: Option<Vec<Digest>> =
            image.map(|image| image.layers.iter().map(|layer| layer.descriptor.digest).collect());
        blocking(move || {
            let mut told = [sbom, told(&chains, &claims)?].concat();
            if let Some(layers) = layers {
                let view = chains.base(&output)?.view;
                told.iter_mut().for_each(|told| told.supplement(&view, &layers));
            }
            Ok(told)
        })
        .await
    }

    /// Runs one export as `step` and returns what the client is told of it.
    ///
    /// # Errors
    /// A client that went away, a full disk, a registry that refuses.
    pub(super) async fn export(
        &self,
        request: &ExportRequest,
        results: &Results,
        step: Step,
        cx: &VertexContext,
    ) -> Result<BTreeMap<String, String>, ExecError> {
        let done = match request.kind {
            ExportKind::Image => self.image(request, results, &step, cx).await,
            ExportKind::Oci | ExportKind::Docker => self.archive(request, results, &step, cx).await,
            ExportKind::Local => self.local(request, results, &step, cx).await,
            ExportKind::Tar => self.tar(request, results, &step, cx).await,
        };
        step.end(done)
    }
}
