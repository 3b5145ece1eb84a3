//! What vouches for an image at its registry: the statements in its index, and who signed them.

use cache::oci::{Descriptor, Document, MANIFEST_LIMIT, Manifest, media_type};
use cache::registry::{Client, DocumentCache};
use cache::store::BlobRef;
use solver::op::Platform;
use solver::{Digest, ExecError, VertexContext};

use super::documents::Documents;
use super::{Found, Home, ImageError, ImageSource, oci_platform};
use crate::daemon::provenance::PREDICATE_TYPE;

/// Signatures, the preferred kind first.
const SIGNATURES: [&str; 2] =
    ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.cosign.artifact.sig.v1+json"];
/// A statement or signature larger than this is not handed on; messages to clients hold 16 MiB.
const STATEMENT_LIMIT: u64 = 12 << 20;

/// A statement larger than this is not kept with a pulled or loaded image.
pub(in crate::daemon) const KEPT_LIMIT: u64 = 64 << 20;

/// What is kept beside an image of the store because it says something of it.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct Vouched {
    /// The index that names the image and its statements.
    pub index: BlobRef,
    /// The statements, and the manifests that name them.
    pub blobs: Vec<Digest>,
}

/// From an image's index down to what vouches for one platform's manifest.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct AttestationChain {
    /// The index.
    pub root: Option<Digest>,
    /// The manifest for the platform.
    pub image: Option<Digest>,
    /// The manifest of its statements.
    pub statements: Option<Digest>,
    /// The manifest of who signed them.
    pub signature: Option<Digest>,
    /// The documents, but for the image's own manifest: nobody needs it to follow the chain.
    pub blobs: Vec<(Descriptor, Vec<u8>)>,
}

/// A manifest stands where another document should.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no manifest of statements")]
struct NoManifest(Digest);

impl ImageSource {
    /// Brings in the statements about an image, as docker's image store does on a pull; `None` where there are none.
    ///
    /// # Errors
    /// A registry that does not answer, or has not what its documents name.
    pub(in crate::daemon) async fn bring_statements(
        &self,
        found: &Found,
        cx: &VertexContext,
    ) -> Result<Option<Vouched>, ExecError> {
        let image = found.image.manifest_digest();
        if !matches!(found.home, Home::Registry | Home::Store) || found.image.digest == image {
            return Ok(None);
        }
        let documents = self.documents(&found.reference, None, cx);
        let reader = Reader { client: self.client(cx), documents, found };
        tokio::select! {
            vouched = reader.keep(&image) => vouched,
            () = cx.cancel.cancelled() => Err(ExecError::Canceled),
        }
    }

    /// What vouches for an image, with the statements of the `wanted` types; `None` for one that is no OCI index.
    ///
    /// # Errors
    /// A registry that does not answer, or has not what its documents name.
    pub(in crate::daemon) async fn attestations(
        &self,
        found: &Found,
        platform: &Platform,
        wanted: &[String],
        cx: &VertexContext,
    ) -> Result<Option<AttestationChain>, ExecError> {
        if found.home.layout().is_some() {
            return Ok(None);
        }
        let documents = self.documents(&found.reference, None, cx);
        let reader = Reader { client: self.client(cx), documents, found };
        tokio::select! {
            chain = reader.chain(platform, wanted) => chain,
            () = cx.cancel.cancelled() => Err(ExecError::Canceled),
        }
    }
}

/// Reads one image's documents.
struct Reader<'a> {
    client: Client,
    documents: Documents,
    found: &'a Found,
}

impl Reader<'_> {
    async fn chain(
        &self,
        platform: &Platform,
        wanted: &[String],
    ) -> Result<Option<AttestationChain>, ExecError> {
        let root = self.found.image.digest;
        let (bytes, document) = self.document(&root).await?;
        let Document::Index(index) = document else { return Ok(None) };
        let kind = index.media_type.clone().unwrap_or_else(|| media_type::OCI_INDEX.to_owned());
        if kind != media_type::OCI_INDEX {
            return Ok(None);
        }
        let mut chain = AttestationChain { root: Some(root), ..AttestationChain::default() };
        chain.blobs.push((Descriptor::new(kind, root, bytes.len() as u64), bytes));
        let Some(image) = index.select(&oci_platform(platform)) else { return Ok(Some(chain)) };
        chain.image = Some(image.digest);
        let statements = index.manifests.iter().find(|entry| entry.is_about(&image.digest));
        let Some(statements) = statements else { return Ok(Some(chain)) };
        let manifest = self.manifest(statements, &mut chain).await?;
        chain.statements = Some(statements.digest);
        let is_wanted = |layer: &&Descriptor| {
            layer.annotations.get(PREDICATE_TYPE).is_some_and(|kind| wanted.contains(kind))
        };
        let mut needed: Vec<Descriptor> = manifest.layers.iter().filter(is_wanted).cloned().collect();
        let referrers = self.client.referrers(&self.found.reference, &statements.digest).await;
        let referrers = referrers.map_err(|e| ExecError::failed(ImageError::from(e)))?;
        let of_kind = |kind: &&str| referrers.iter().find(|r| r.artifact_type.as_deref() == Some(*kind));
        if let Some(signature) = SIGNATURES.iter().find_map(of_kind) {
            let manifest = self.manifest(signature, &mut chain).await?;
            chain.signature = Some(signature.digest);
            needed.extend(manifest.layers);
        }
        for descriptor in needed {
            if chain.blobs.iter().any(|(known, _)| known.digest == descriptor.digest) {
                continue;
            }
            let bytes = self.client.fetch_bytes(&self.found.reference, &descriptor, STATEMENT_LIMIT).await;
            chain.blobs.push((descriptor, bytes.map_err(|e| ExecError::failed(ImageError::from(e)))?));
        }
        Ok(Some(chain))
    }

    /// Keeps the statements about the manifest `image`, and what names them.
    async fn keep(&self, image: &Digest) -> Result<Option<Vouched>, ExecError> {
        let root = self.found.image.digest;
        let (bytes, document) = self.document(&root).await?;
        let media_type = document.media_type().to_owned();
        let Document::Index(index) = document else { return Ok(None) };
        let mut blobs = Vec::new();
        let failed = |e| ExecError::failed(ImageError::from(e));
        // From the registry even where they are here: an index that names what somebody else keeps does not open that.
        for entry in index.manifests.iter().filter(|entry| entry.is_about(image)) {
            let fetched = self.client.fetch_manifest(&self.found.reference, &entry.digest).await;
            let (bytes, document) = fetched.map_err(failed)?;
            self.documents.put(&entry.digest, document.media_type(), &bytes);
            let Document::Manifest(manifest) = document else {
                return Err(ExecError::failed(NoManifest(entry.digest)));
            };
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                let bytes = self.client.fetch_bytes(&self.found.reference, blob, KEPT_LIMIT).await;
                self.documents.put(&blob.digest, &blob.media_type, &bytes.map_err(failed)?);
                blobs.push(blob.digest);
            }
            blobs.push(entry.digest);
        }
        let index = BlobRef { media_type, digest: root, size: bytes.len() as u64 };
        Ok((!blobs.is_empty()).then_some(Vouched { index, blobs }))
    }

    /// A manifest that becomes part of the chain.
    async fn manifest(
        &self,
        entry: &Descriptor,
        chain: &mut AttestationChain,
    ) -> Result<Manifest, ExecError> {
        let (bytes, document) = self.document(&entry.digest).await?;
        let Document::Manifest(manifest) = document else {
            return Err(ExecError::failed(NoManifest(entry.digest)));
        };
        chain.blobs.push((entry.clone(), bytes));
        Ok(*manifest)
    }

    /// A document of the image's repository, from here where it is known already.
    async fn document(&self, digest: &Digest) -> Result<(Vec<u8>, Document), ExecError> {
        let known = self.documents.get(digest).filter(|bytes| bytes.len() as u64 <= MANIFEST_LIMIT);
        if let Some(bytes) = known
            && let Ok(document) = Document::parse(&bytes, None)
        {
            return Ok((bytes, document));
        }
        let fetched = self.client.fetch_manifest(&self.found.reference, digest).await;
        let (bytes, document) = fetched.map_err(|e| ExecError::failed(ImageError::from(e)))?;
        self.documents.put(digest, document.media_type(), &bytes);
        Ok((bytes, document))
    }
}
