//! What sources are, without bringing them in.

use std::collections::BTreeMap;

use proto::gateway::{
    AttestationChain, Blob, Descriptor, ResolveImageConfigRequest, ResolveImageConfigResponse,
    ResolveSourceGitResponse, ResolveSourceHttpResponse, ResolveSourceImageResponse,
    ResolveSourceMetaRequest, ResolveSourceMetaResponse,
};
use proto::pb;
use solver::op::{Platform, SourceOp, attr};
use tonic::Code;

use super::Bridge;
use crate::daemon::failure::{self, Failure};
use crate::daemon::parts::Parts;
use crate::daemon::policies::{self, Rules};
use crate::daemon::run::Run;
use crate::daemon::sources::About;
use crate::daemon::sources::image::{Found, host_platform};
use crate::llb::from_platform;

/// `ResolverType` of images in a client's OCI layout (`client/llb/sourceresolver/types.go`).
const LAYOUT: i32 = 1;

impl Bridge {
    pub(super) async fn image_config(
        &self,
        request: ResolveImageConfigRequest,
    ) -> Result<ResolveImageConfigResponse, Failure> {
        let rules = Rules::new(&request.source_policies).map_err(|e| Failure::invalid(&e))?;
        let layout = request.resolver_type == LAYOUT;
        let scheme = if layout { "oci-layout" } else { "docker-image" };
        let mut op = SourceOp { identifier: format!("{scheme}://{}", request.r#ref), attrs: BTreeMap::new() };
        if layout {
            op.attrs.insert(attr::OCI_LAYOUT_SESSION_ID.to_owned(), request.session_id);
            op.attrs.insert(attr::OCI_LAYOUT_STORE_ID.to_owned(), request.store_id);
        }
        let platform = request.platform.as_ref().map(from_platform);
        let allowed = policies::resolve(&self.parts, &self.run, &op, platform.as_ref(), &rules).await?;
        // The name as it was given, unless it is another image's.
        let reference = match allowed.identifier == op.identifier {
            true => request.r#ref,
            false => allowed.scheme_and_ref().1.to_owned(),
        };
        let asked = Asked {
            platform: platform.as_ref(),
            mode: &request.resolve_mode,
            log_name: &request.log_name,
            objects: false,
        };
        let Some(About::Image(found)) = about(&self.parts, &self.run, allowed, asked).await? else {
            return Err(Failure::new(Code::InvalidArgument, format!("`{reference}` is no image")));
        };
        Ok(ResolveImageConfigResponse {
            digest: found.image.digest.to_string(),
            config: found.image.config_bytes.clone().into(),
            r#ref: reference,
        })
    }

    pub(super) async fn source_meta(
        &self,
        request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, Failure> {
        let rules = Rules::new(&request.source_policies).map_err(|e| Failure::invalid(&e))?;
        let source = request.source.clone();
        let source = source.ok_or_else(|| Failure::new(Code::InvalidArgument, "source is required"))?;
        let op = SourceOp { identifier: source.identifier, attrs: source.attrs };
        let platform = request.platform.as_ref().map(from_platform);
        let op = policies::resolve(&self.parts, &self.run, &op, platform.as_ref(), &rules).await?;
        source_meta(&self.parts, &self.run, request, op).await
    }
}

/// What `op` is, which policies put in the place of the source that the request names.
///
/// # Errors
/// A source that cannot be had; cancellation.
pub(in crate::daemon) async fn source_meta(
    parts: &Parts,
    run: &Run,
    request: ResolveSourceMetaRequest,
    op: SourceOp,
) -> Result<ResolveSourceMetaResponse, Failure> {
    let source = pb::SourceOp { identifier: op.identifier.clone(), attrs: op.attrs.clone() };
    let platform = request.platform.as_ref().map(from_platform);
    let asked = Asked {
        platform: platform.as_ref(),
        mode: &request.resolve_mode,
        log_name: &request.log_name,
        objects: request.git.is_some_and(|git| git.return_object),
    };
    let about = about(parts, run, op, asked).await?;
    let mut response = ResolveSourceMetaResponse { source: Some(source), ..Default::default() };
    match about {
        // A client's own directory.
        None => {}
        Some(About::Image(found)) => {
            let wishes = request.image.unwrap_or_default();
            let config = if wishes.no_config { Vec::new() } else { found.image.config_bytes.clone() };
            let wanted = wishes.resolve_attestations;
            let attestation_chain = match wishes.attestation_chain || !wanted.is_empty() {
                true => chain(parts, run, &found, platform.as_ref(), &wanted).await?,
                false => None,
            };
            response.image = Some(ResolveSourceImageResponse {
                digest: found.image.digest.to_string(),
                config: config.into(),
                attestation_chain,
            });
        }
        Some(About::File(about)) => {
            response.http = Some(ResolveSourceHttpResponse {
                checksum: about.digest.to_string(),
                filename: about.name,
                last_modified: about.modified.map(|nanos| prost_types::Timestamp {
                    seconds: nanos.div_euclid(1_000_000_000),
                    nanos: nanos.rem_euclid(1_000_000_000) as i32,
                }),
                ..ResolveSourceHttpResponse::default()
            });
        }
        Some(About::Commit(about)) => {
            // BuildKit names the commit apart only where a tag stands around it.
            let commit = if about.commit == about.object { String::new() } else { about.commit };
            let full_ref = if about.full_ref.is_empty() { about.object.clone() } else { about.full_ref };
            response.git = Some(ResolveSourceGitResponse {
                checksum: about.object,
                r#ref: full_ref,
                commit_checksum: commit,
                commit_object: about.commit_object.into(),
                tag_object: about.tag_object.into(),
            });
        }
    }
    Ok(response)
}

/// What vouches for an image, in the client's terms.
async fn chain(
    parts: &Parts,
    run: &Run,
    found: &Found,
    platform: Option<&Platform>,
    wanted: &[String],
) -> Result<Option<AttestationChain>, Failure> {
    let platform = platform.cloned().unwrap_or_else(host_platform);
    let cx = run.context(solver::Progress::new(|_| {}));
    let chain = parts.images.attestations(found, &platform, wanted, &cx).await;
    let text = |digest: Option<solver::Digest>| digest.map(|digest| digest.to_string()).unwrap_or_default();
    Ok(chain.map_err(|e| Failure::of_export(&e))?.map(|chain| AttestationChain {
        root: text(chain.root),
        image_manifest: text(chain.image),
        attestation_manifest: text(chain.statements),
        signature_manifests: chain.signature.iter().map(ToString::to_string).collect(),
        blobs: chain.blobs.into_iter().map(|(of, data)| (of.digest.to_string(), blob(of, data))).collect(),
    }))
}

fn blob(of: cache::oci::Descriptor, data: Vec<u8>) -> Blob {
    let descriptor = Descriptor {
        media_type: of.media_type,
        digest: of.digest.to_string(),
        size: of.size as i64,
        annotations: of.annotations,
    };
    Blob { descriptor: Some(descriptor), data: data.into() }
}

/// What a source is, shown as a step.
async fn about(
    parts: &Parts,
    run: &Run,
    mut op: SourceOp,
    asked: Asked<'_>,
) -> Result<Option<About>, Failure> {
    let (scheme, reference) = op.scheme_and_ref();
    let (is_image, reference) = (matches!(scheme, "docker-image" | "oci-layout"), reference.to_owned());
    let name = match asked.log_name {
        "" if is_image => format!("resolve image config for {}", op.identifier),
        "" => format!("resolve {}", solver::redacted(&op.identifier)),
        name => name.to_owned(),
    };
    if is_image && asked.mode == "pull" {
        op.attrs.insert(attr::IMAGE_RESOLVE_MODE.to_owned(), asked.mode.to_owned());
    }
    let step = run.teller.step(&name);
    let cx = run.context(step.progress());
    let found = tokio::select! {
        found = parts.sources.about(&op, asked.platform, asked.objects, &cx) => found,
        () = run.cancel.cancelled() => Err(solver::ExecError::Canceled),
    };
    step.end(found).map_err(|e| match is_image {
        true => {
            let cause = failure::text(&e);
            let message = format!("failed to resolve source metadata for {reference}: {cause}");
            Failure { code: Code::Unknown, message, ..Failure::of_export(&e) }
        }
        false => Failure::of_export(&e),
    })
}

/// How a source is asked about.
struct Asked<'a> {
    platform: Option<&'a Platform>,
    mode: &'a str,
    log_name: &'a str,
    /// With the objects of a commit.
    objects: bool,
}
