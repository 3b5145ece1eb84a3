//! Statements about an image, in a manifest of their own beside it (BuildKit's attestation storage).

use base64::Engine as _;
use cache::oci::{Descriptor, Manifest, Platform, media_type};
use cache::store::Lease;
use serde_json::json;
use solver::ExecError;

use super::assemble::AssembledImage;
use super::{Built, ExportRequest, Exporter};
use crate::daemon::claims::{Claim, Told};
use crate::daemon::provenance::{About, PREDICATE_TYPE, Statement, purl};

/// A manifest that holds statements about an image.
#[derive(Debug, Clone)]
pub(super) struct Attested {
    /// The manifest.
    pub(super) manifest: Descriptor,
    /// Config and statements.
    pub(super) blobs: Vec<Descriptor>,
}

/// The type of an artifact that holds statements about an image.
const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";

/// The config of artifacts.
const EMPTY: &[u8] = b"{}";

/// The result is exported with media types that know no attestations.
#[derive(Debug, thiserror::Error)]
#[error("cannot export attestations with \"oci-mediatypes=false\"")]
struct DockerTypes;

impl ExportRequest {
    /// Whether an image has a place for statements, if there are any. As in BuildKit it gets all of them then.
    pub(super) fn is_attested(&self, built: &Built, multi_platform: bool) -> bool {
        let provenance = built.provenance.as_deref();
        if built.claims.is_empty() && built.sbom.is_empty() && provenance.is_none() {
            return false;
        }
        let inline_only = built.sbom.is_empty()
            && built.claims.iter().all(Claim::inline_only)
            && provenance.is_none_or(|provenance| provenance.options().inline_only);
        !inline_only || self.attestation_inline || multi_platform
    }
}

impl Exporter {
    /// The manifest with what is to be told of an image, `claims` first; `None` where nothing is.
    pub(super) fn attested(
        &self,
        request: &ExportRequest,
        built: &Built,
        claims: &[Told],
        multi_platform: bool,
        image: &AssembledImage,
        lease: &Lease,
    ) -> Result<Option<Attested>, ExecError> {
        let provenance = built.provenance.as_deref();
        if claims.is_empty() && provenance.is_none() || !request.is_attested(built, multi_platform) {
            return Ok(None);
        }
        if !request.oci_types {
            return Err(ExecError::failed(DockerTypes));
        }
        let (platform, hex) = (image.manifest.platform.as_ref(), image.manifest.digest.hex());
        let about = |name| About::new(purl("docker", name, platform), hex.clone());
        let about: Vec<About> = request.names.iter().map(about).collect();
        let mut statements: Vec<Statement> = claims.iter().map(|told| told.statement(&about)).collect();
        if let Some(provenance) = provenance {
            let layers: Vec<Descriptor> = image.layers.iter().map(|layer| layer.descriptor.clone()).collect();
            statements.push(Statement {
                predicate_type: provenance.predicate_type().to_owned(),
                predicate: provenance.predicate(&layers),
                subjects: about,
            });
        }
        let mut layers = Vec::with_capacity(statements.len());
        for statement in statements {
            let bytes = serde_json::to_vec(&statement.json()).map_err(ExecError::failed)?;
            let mut layer = self.keep(lease, media_type::IN_TOTO, &bytes)?;
            layer.annotations.insert(PREDICATE_TYPE.to_owned(), statement.predicate_type);
            layers.push(layer);
        }
        let manifest = match request.oci_artifact {
            true => {
                let mut config = self.keep(lease, media_type::OCI_EMPTY, EMPTY)?;
                config.data = Some(base64::engine::general_purpose::STANDARD.encode(EMPTY));
                let about = &image.manifest;
                Manifest {
                    artifact_type: Some(ARTIFACT.to_owned()),
                    subject: Some(Descriptor::new(&about.media_type, about.digest, about.size)),
                    ..Manifest::new(config, layers.clone())
                }
            }
            false => {
                let diff_ids: Vec<String> = layers.iter().map(|layer| layer.digest.to_string()).collect();
                let config = json!({
                    "architecture": "unknown",
                    "os": "unknown",
                    "config": {},
                    "rootfs": { "type": "layers", "diff_ids": diff_ids },
                });
                let config = serde_json::to_vec(&config).map_err(ExecError::failed)?;
                Manifest::new(self.keep(lease, media_type::OCI_CONFIG, &config)?, layers.clone())
            }
        };
        let blobs = std::iter::once(manifest.config.clone()).chain(layers).collect();
        let mut manifest = self.keep(lease, media_type::OCI_MANIFEST, &manifest.to_json())?;
        manifest.annotations = [
            ("vnd.docker.reference.type", "attestation-manifest".to_owned()),
            (Descriptor::ABOUT, image.manifest.digest.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let unknown = || "unknown".to_owned();
        manifest.platform = Some(Platform { architecture: unknown(), os: unknown(), ..Platform::default() });
        Ok(Some(Attested { manifest, blobs }))
    }
}
