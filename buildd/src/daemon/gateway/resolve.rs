//! What sources are, without bringing them in.

use std::collections::BTreeMap;

use proto::gateway::{
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceGitResponse,
    ResolveSourceHttpResponse, ResolveSourceImageResponse, ResolveSourceMetaRequest,
    ResolveSourceMetaResponse,
};
use proto::pb;
use solver::op::{Platform, SourceOp, attr};
use tonic::Code;

use super::Bridge;
use crate::daemon::failure::{self, Failure};
use crate::daemon::sources::About;

/// `ResolverType` of images in a client's OCI layout (`client/llb/sourceresolver/types.go`).
const LAYOUT: i32 = 1;

impl Bridge {
    pub(super) async fn image_config(
        &self,
        request: ResolveImageConfigRequest,
    ) -> Result<ResolveImageConfigResponse, Failure> {
        if !request.source_policies.is_empty() {
            return Err(Failure::no_policies());
        }
        let layout = request.resolver_type == LAYOUT;
        let scheme = if layout { "oci-layout" } else { "docker-image" };
        let mut op = SourceOp { identifier: format!("{scheme}://{}", request.r#ref), attrs: BTreeMap::new() };
        if layout {
            op.attrs.insert(attr::OCI_LAYOUT_SESSION_ID.to_owned(), request.session_id);
            op.attrs.insert(attr::OCI_LAYOUT_STORE_ID.to_owned(), request.store_id);
        }
        let asked = Asked {
            platform: request.platform,
            mode: &request.resolve_mode,
            log_name: &request.log_name,
            objects: false,
        };
        let Some(About::Image(found)) = self.about(&mut op, asked).await? else {
            return Err(Failure::new(Code::InvalidArgument, format!("`{}` is no image", request.r#ref)));
        };
        Ok(ResolveImageConfigResponse {
            digest: found.image.digest.to_string(),
            config: found.image.config_bytes.clone().into(),
            r#ref: request.r#ref,
        })
    }

    pub(super) async fn source_meta(
        &self,
        request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, Failure> {
        if !request.source_policies.is_empty() {
            return Err(Failure::no_policies());
        }
        let source =
            request.source.ok_or_else(|| Failure::new(Code::InvalidArgument, "source is required"))?;
        let mut op = SourceOp { identifier: source.identifier.clone(), attrs: source.attrs.clone() };
        let objects = request.git.is_some_and(|git| git.return_object);
        let asked = Asked {
            platform: request.platform,
            mode: &request.resolve_mode,
            log_name: &request.log_name,
            objects,
        };
        let about = self.about(&mut op, asked).await?;
        let mut response = ResolveSourceMetaResponse { source: Some(source), ..Default::default() };
        match about {
            // A client's own directory.
            None => {}
            Some(About::Image(found)) => {
                let config = match request.image.is_some_and(|i| i.no_config) {
                    true => Vec::new(),
                    false => found.image.config_bytes.clone(),
                };
                response.image = Some(ResolveSourceImageResponse {
                    digest: found.image.digest.to_string(),
                    config: config.into(),
                    attestation_chain: None,
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

    /// What a source is, shown as a step.
    async fn about(&self, op: &mut SourceOp, asked: Asked<'_>) -> Result<Option<About>, Failure> {
        let platform = asked.platform.map(|p| Platform {
            architecture: p.architecture,
            os: p.os,
            variant: p.variant,
            os_version: p.os_version,
        });
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
        let step = self.run.teller.step(&name);
        let cx = self.run.context(step.progress());
        let found = tokio::select! {
            found = self.parts.sources.about(op, platform.as_ref(), asked.objects, &cx) => found,
            () = self.run.cancel.cancelled() => Err(solver::ExecError::Canceled),
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
}

/// How a source is asked about.
struct Asked<'a> {
    platform: Option<pb::Platform>,
    mode: &'a str,
    log_name: &'a str,
    /// With the objects of a commit.
    objects: bool,
}
