//! Images: looked up in the image store, at a registry or in a client's OCI layout, pulled when their files are needed.

mod adopt;
pub(in crate::daemon) mod attestations;
pub(in crate::daemon) mod blob;
mod credentials;
mod documents;
mod layout;
mod limits;
pub(crate) mod place;
mod pull;
mod tokens;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::oci::{
    Descriptor, Document, ImageMetadata, Manifest, PlatformMatcher, Reference, ResolvedImage, media_type,
};
use cache::registry::{Client, Registries};
use cache::store::{ImageRecord, Lease};
use solver::digest::Hasher;
use solver::op::{Platform, SourceOp, attr};
use solver::{Digest, ExecError, LayerId, Output, SourceAnswer, SourceIdentity, VertexContext};

use crate::daemon::chains::{Chains, from_store};
use crate::daemon::leases::Leases;
use crate::daemon::provenance::Pin;
use crate::daemon::remote_cache::ServiceStore;
use crate::daemon::turns::Turns;
use crate::session::SessionManager;
use documents::Documents;

/// Which of the places that know images is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Prefer {
    /// The image store; what it does not have, at the registry.
    #[default]
    Local,
    /// Always the registry.
    Registry,
}

/// An image as it was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The reference, normalised.
    pub reference: Reference,
    /// Its documents.
    pub image: ResolvedImage,
    /// Its layers, lowest first.
    pub layers: Arc<[LayerId]>,
    /// Where it is.
    pub home: Home,
}

/// Where an image is.
#[derive(Debug, Clone)]
pub(crate) enum Home {
    /// At a registry.
    Registry,
    /// In the image store: some of its layers may be where they came from only.
    Store,
    /// In a layout of the client.
    Layout(LayoutStore),
    /// At a service that keeps caches, which only this build may ask for it.
    Cache(Arc<ServiceStore>),
}

impl Home {
    /// The layout that it is.
    pub(crate) fn layout(&self) -> Option<&LayoutStore> {
        match self {
            Self::Layout(layout) => Some(layout),
            Self::Registry | Self::Store | Self::Cache(_) => None,
        }
    }
}

/// An OCI layout, or a cache, that a client offers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LayoutStore {
    /// The client's session; empty for any of the build's.
    pub session: String,
    /// What the client calls it: `oci:` and the name of a layout, `local:` and the path of a cache.
    pub store: String,
}

/// What was looked up: by which build, where, under which name, for which platform.
type Lookup = (String, Option<LayoutStore>, String, Platform);

/// Images of registries and of the image store.
#[derive(Debug)]
pub(crate) struct ImageSource {
    pub(super) chains: Chains,
    pub(super) leases: Arc<Leases>,
    sessions: Arc<SessionManager>,
    registries: Registries,
    tokens: Arc<tokens::Tokens>,
    /// A build sees one answer.
    found: Mutex<HashMap<Lookup, Arc<Found>>>,
    pulls: Turns<Digest>,
    /// By build: registries as it wants to see them.
    insecure: Mutex<HashMap<String, Registries>>,
}

/// An image could not be looked up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// The name is malformed.
    #[error(transparent)]
    Reference(#[from] cache::oci::Error),
    /// The registry could not give it.
    #[error(transparent)]
    Registry(#[from] cache::registry::Error),
    /// An image of an OCI layout is named by its digest only.
    #[error("`{0}` of an OCI layout has no digest")]
    NoDigest(String),
    /// The source does not say which layout it means.
    #[error("`{0}` names no OCI layout")]
    NoLayout(String),
}

impl ImageSource {
    /// Images of the store behind `chains`, and of registries.
    pub(crate) fn new(
        chains: Chains,
        leases: Arc<Leases>,
        sessions: Arc<SessionManager>,
        registries: Registries,
    ) -> Self {
        Self {
            chains,
            leases,
            sessions,
            registries,
            tokens: Arc::default(),
            found: Mutex::default(),
            pulls: Turns::default(),
            insecure: Mutex::default(),
        }
    }

    /// A registry client with the credentials of a build's sessions.
    pub(crate) fn client(&self, cx: &VertexContext) -> Client {
        let credentials = credentials::OfSessions {
            sessions: self.sessions.clone(),
            group: cx.sessions.clone(),
            tokens: self.tokens.clone(),
        };
        let insecure = self.insecure.lock().unwrap_or_else(PoisonError::into_inner);
        let registries = insecure.get(&cx.build).unwrap_or(&self.registries);
        registries.client(Arc::new(credentials))
    }

    /// For a build these registries need not prove who they are, and may speak without TLS: so its client says.
    pub(crate) fn trust_blindly<'a>(&self, build: &str, hosts: impl IntoIterator<Item = &'a str>) {
        let mut insecure = self.insecure.lock().unwrap_or_else(PoisonError::into_inner);
        insecure.insert(build.to_owned(), self.registries.with_insecure(hosts));
    }

    /// Whether there are such registries.
    pub(crate) fn trusts_blindly(&self, build: &str) -> bool {
        self.insecure.lock().unwrap_or_else(PoisonError::into_inner).contains_key(build)
    }

    /// The lease of a build.
    pub(crate) fn lease(&self, build: &str) -> Lease {
        self.leases.of(build)
    }

    /// Looks an image up, once per build.
    ///
    /// # Errors
    /// A malformed name, an image that is nowhere, a registry that does not answer.
    pub(crate) async fn resolve(
        &self,
        reference: &str,
        platform: &Platform,
        prefer: Prefer,
        cx: &VertexContext,
    ) -> Result<Arc<Found>, ExecError> {
        let parsed = Reference::parse(reference)
            .map_err(|e| ExecError::failed(ImageError::from(e)))?
            .with_default_tag();
        let key = (cx.build.clone(), None, parsed.to_string(), platform.clone());
        if let Some(known) = self.lock().get(&key) {
            return Ok(known.clone());
        }
        let stored = match prefer {
            Prefer::Local => self.stored(&parsed, platform)?,
            Prefer::Registry => None,
        };
        let found = match stored {
            Some(found) => found,
            None => self.at_registry(parsed, platform, cx).await?,
        };
        let found = Arc::new(found);
        let mut map = self.lock();
        // The digest finds it as well: the graph names it by that.
        let pinned = found.reference.with_digest(found.image.digest);
        map.insert((key.0.clone(), None, pinned.to_string(), platform.clone()), found.clone());
        map.insert(key, found.clone());
        Ok(found)
    }

    /// All images that a build looked up.
    fn of_build(&self, build: &str) -> Vec<Arc<Found>> {
        self.lock().iter().filter(|((b, ..), _)| b == build).map(|(_, f)| f.clone()).collect()
    }

    /// Forgets what was looked up for a build.
    pub(crate) fn forget(&self, build: &str) {
        self.lock().retain(|(b, ..), _| b != build);
        self.insecure.lock().unwrap_or_else(PoisonError::into_inner).remove(build);
    }

    pub(super) async fn identify(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        cx: &VertexContext,
    ) -> Result<SourceAnswer, ExecError> {
        let found = self.of_op(op, platform, cx).await?;
        let manifest = found.image.manifest_digest();
        if found.home.layout().is_some() {
            // Its layers can be had from this client only, so they are not left where they are.
            return Ok(SourceAnswer {
                identity: SourceIdentity::Digest(manifest),
                revision: None,
                output: None,
            });
        }
        let content = self.chains.image_content(&manifest)?;
        let output = Output { chain: found.layers.clone(), content: content.map(Digest::from), local: None };
        Ok(SourceAnswer { identity: SourceIdentity::Digest(manifest), revision: None, output: Some(output) })
    }

    pub(super) async fn fetch(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        cx: &VertexContext,
    ) -> Result<Output, ExecError> {
        let found = self.of_op(op, platform, cx).await?;
        let content = self.unpacked(&found, cx).await?;
        Ok(Output { chain: found.layers.clone(), content: Some(content), local: None })
    }

    /// What provenance tells of the source.
    pub(super) async fn pin(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        cx: &VertexContext,
    ) -> Result<Pin, ExecError> {
        let found = self.of_op(op, platform, cx).await?;
        Ok(Pin::Image {
            reference: found.reference.clone(),
            platform: platform.cloned().unwrap_or_else(host_platform),
            digest: found.image.digest,
            layout: found.home.layout().is_some(),
        })
    }

    /// The image that a source stands for.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub(crate) async fn of_op(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        cx: &VertexContext,
    ) -> Result<Arc<Found>, ExecError> {
        let wishes = limits::Wishes::of_op(op).map_err(ExecError::failed)?;
        let found = self.whole(op, platform, cx).await?;
        let found = wishes.check(found).map_err(ExecError::failed)?;
        let Some(limited) = wishes.limit(&found) else { return Ok(found) };
        let limited = Arc::new(limited);
        // Found again when its layers are wanted.
        let key = (
            cx.build.clone(),
            limited.home.layout().cloned(),
            limited.name_in_build(),
            platform.cloned().unwrap_or_else(host_platform),
        );
        self.lock().insert(key, limited.clone());
        Ok(limited)
    }

    /// The image that a source names, with all its layers.
    async fn whole(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        cx: &VertexContext,
    ) -> Result<Arc<Found>, ExecError> {
        let host = host_platform();
        let (scheme, reference) = op.scheme_and_ref();
        let platform = platform.unwrap_or(&host);
        if scheme == "oci-layout" {
            let get = |name| op.attrs.get(name).cloned().unwrap_or_default();
            let (session, store) = (get(attr::OCI_LAYOUT_SESSION_ID), get(attr::OCI_LAYOUT_STORE_ID));
            if store.is_empty() {
                return Err(ExecError::failed(ImageError::NoLayout(op.identifier.clone())));
            }
            let layout = LayoutStore { session, store: format!("oci:{store}") };
            return self.resolve_layout(reference, platform, &layout, cx).await;
        }
        let prefer = match op.attrs.get(attr::IMAGE_RESOLVE_MODE).map(String::as_str) {
            Some("pull") => Prefer::Registry,
            _ => Prefer::Local,
        };
        self.resolve(reference, platform, prefer, cx).await
    }

    async fn at_registry(
        &self,
        reference: Reference,
        platform: &Platform,
        cx: &VertexContext,
    ) -> Result<Found, ExecError> {
        let documents = self.documents(&reference, reference.digest().copied(), cx);
        let wanted = oci_platform(platform);
        let resolve = self.client(cx);
        let image = tokio::select! {
            r = resolve.resolve(&reference, &wanted, &documents) => r.map_err(|e| ExecError::failed(ImageError::from(e)))?,
            () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
        };
        let blobs = self.chains.store.blobs();
        blobs.note_origin(&image.digest, &documents.repository).map_err(from_store)?;
        let layers = chain_of(image.layers().map(|(_, diff_id)| diff_id));
        let found = Found { reference, image, layers, home: Home::Registry };
        self.declare(&found, &self.leases.of(&cx.build))?;
        Ok(found)
    }

    /// The documents of a repository that are here, of which the client named one by its digest.
    fn documents(&self, reference: &Reference, named: Option<Digest>, cx: &VertexContext) -> Documents {
        let (store, lease) = (self.chains.store.clone(), self.leases.of(&cx.build));
        Documents { store, lease, repository: reference.repository(), named }
    }

    /// Notes the layers, for builds that never need their files, and the registry where anybody can have them.
    fn declare(&self, found: &Found, lease: &Lease) -> Result<(), ExecError> {
        let origin = matches!(found.home, Home::Registry).then_some(&found.reference);
        for (i, id) in found.layers.iter().enumerate() {
            let about = place::about(&found.image, i, origin);
            self.chains.store.layers().declare(lease, id, about).map_err(from_store)?;
        }
        Ok(())
    }

    /// The image behind a name or digest in the image store.
    fn stored(&self, reference: &Reference, platform: &Platform) -> Result<Option<Found>, ExecError> {
        let store = &self.chains.store;
        let Some(record) = store.images().get(&reference.to_string()).map_err(from_store)? else {
            return Ok(None);
        };
        let Some(image) = self.documents_of(&record)? else { return Ok(None) };
        if !PlatformMatcher::new(&oci_platform(platform)).matches(&image.config.platform) {
            return Ok(None);
        }
        let layers = record.layers.into();
        Ok(Some(Found { reference: reference.clone(), image, layers, home: Home::Store }))
    }

    /// The documents of an image of the store; `None` for those that fit no image.
    fn documents_of(&self, record: &ImageRecord) -> Result<Option<ResolvedImage>, ExecError> {
        let blobs = self.chains.store.blobs();
        let read = |digest: &Digest| blobs.read(digest, 16 << 20).map_err(from_store);
        let (manifest, config) = (read(&record.manifest)?, read(&record.config)?);
        Ok(from_documents(record, manifest, config).ok())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Lookup, Arc<Found>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn from_documents(
    record: &ImageRecord,
    manifest_bytes: Vec<u8>,
    config_bytes: Vec<u8>,
) -> Result<ResolvedImage, cache::oci::Error> {
    let Document::Manifest(manifest) = Document::parse(&manifest_bytes, None)? else {
        return Err(cache::oci::Error::Unsupported {
            reason: "an index stands where a manifest should".to_owned(),
        });
    };
    let manifest: Manifest = *manifest;
    let config = ImageMetadata::parse(&config_bytes)?;
    let media_type = manifest.media_type.clone().unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
    let manifest_descriptor = Descriptor::new(media_type, record.manifest, manifest_bytes.len() as u64);
    Ok(ResolvedImage {
        digest: record.target.digest,
        manifest_descriptor,
        manifest_bytes,
        manifest,
        config_bytes,
        config,
    })
}

/// The ids of an image's layers: each stands for its diff ID on all those below (OCI image spec, "Layer ChainID"),
/// because whiteouts and links of a layer mean something only on them.
pub(crate) fn chain_of<'a>(diff_ids: impl Iterator<Item = &'a Digest>) -> Arc<[LayerId]> {
    let mut chain: Vec<LayerId> = Vec::new();
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => LayerId::from_diff_id(diff_id),
            Some(below) => {
                let mut h = Hasher::new("rbuild.layer.chain.v1");
                h.digest(&below.0).digest(diff_id);
                LayerId(h.finish())
            }
        };
        chain.push(id);
    }
    chain.into()
}

/// This machine's platform.
pub(crate) fn host_platform() -> Platform {
    let host = cache::oci::Platform::host();
    Platform {
        architecture: host.architecture,
        os: host.os,
        variant: host.variant.unwrap_or_default(),
        os_version: String::new(),
    }
}

/// The solver's platform in the image formats' terms.
pub(crate) fn oci_platform(p: &Platform) -> cache::oci::Platform {
    let optional = |s: &String| Some(s.clone()).filter(|s| !s.is_empty());
    cache::oci::Platform {
        architecture: p.architecture.clone(),
        os: p.os.clone(),
        variant: optional(&p.variant),
        os_version: optional(&p.os_version),
        ..cache::oci::Platform::default()
    }
}
