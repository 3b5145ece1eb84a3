//! What sources are, without bringing them in.

use proto::gateway::{
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceHttpResponse,
    ResolveSourceImageResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse,
};
use proto::pb;
use solver::op::{Platform, SourceOp};
use tonic::Code;

use super::Bridge;
use crate::daemon::failure::{self, Failure};
use crate::daemon::sources::image::{Found, Prefer, host_platform};

const IMAGE: &str = "docker-image://";

impl Bridge {
    pub(super) async fn image_config(
        &self,
        request: ResolveImageConfigRequest,
    ) -> Result<ResolveImageConfigResponse, Failure> {
        if !request.source_policies.is_empty() {
            return Err(Failure::no_policies());
        }
        let image = Image {
            reference: &request.r#ref,
            platform: request.platform.as_ref(),
            mode: &request.resolve_mode,
            log_name: &request.log_name,
        };
        let found = self.image(image).await?;
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
        let Some(reference) = source.identifier.strip_prefix(IMAGE) else {
            return self.file(source, &request.log_name).await;
        };
        let image = Image {
            reference,
            platform: request.platform.as_ref(),
            mode: &request.resolve_mode,
            log_name: &request.log_name,
        };
        let found = self.image(image).await?;
        let config = match request.image.is_some_and(|i| i.no_config) {
            true => Vec::new(),
            false => found.image.config_bytes.clone(),
        };
        let image = ResolveSourceImageResponse {
            digest: found.image.digest.to_string(),
            config: config.into(),
            attestation_chain: None,
        };
        Ok(ResolveSourceMetaResponse { source: Some(source), image: Some(image), ..Default::default() })
    }

    /// What a file behind a URL is. Of other sources nothing is told ahead: the solver pins them when it evaluates the
    /// graph.
    async fn file(&self, source: pb::SourceOp, log_name: &str) -> Result<ResolveSourceMetaResponse, Failure> {
        let op = SourceOp { identifier: source.identifier.clone(), attrs: source.attrs.clone() };
        let http = match op.scheme_and_ref().0 {
            "http" | "https" => {
                let shown = solver::redacted(&source.identifier).into_owned();
                let name = if log_name.is_empty() { format!("resolve {shown}") } else { log_name.to_owned() };
                let step = self.run.teller.step(&name);
                let cx = self.run.context(step.progress());
                let found = step.end(self.parts.sources.file(&op, &cx).await);
                found.map_err(|e| Failure::of_export(&e))?
            }
            _ => None,
        };
        let http = http.map(|about| ResolveSourceHttpResponse {
            checksum: about.digest.to_string(),
            filename: about.name,
            last_modified: about.modified.map(|nanos| prost_types::Timestamp {
                seconds: nanos.div_euclid(1_000_000_000),
                nanos: nanos.rem_euclid(1_000_000_000) as i32,
            }),
            ..ResolveSourceHttpResponse::default()
        });
        Ok(ResolveSourceMetaResponse { source: Some(source), http, ..Default::default() })
    }

    async fn image(&self, wanted: Image<'_>) -> Result<std::sync::Arc<Found>, Failure> {
        let platform = wanted.platform.map_or_else(host_platform, |p| Platform {
            architecture: p.architecture.clone(),
            os: p.os.clone(),
            variant: p.variant.clone(),
            os_version: p.os_version.clone(),
        });
        let prefer = if wanted.mode == "pull" { Prefer::Registry } else { Prefer::Local };
        let name = match wanted.log_name {
            "" => format!("resolve image config for {IMAGE}{}", wanted.reference),
            name => name.to_owned(),
        };
        let step = self.run.teller.step(&name);
        let cx = self.run.context(step.progress());
        let found = tokio::select! {
            found = self.parts.images.resolve(wanted.reference, &platform, prefer, &cx) => found,
            () = self.run.cancel.cancelled() => Err(solver::ExecError::Canceled),
        };
        step.end(found).map_err(|e| {
            let message =
                format!("failed to resolve source metadata for {}: {}", wanted.reference, failure::text(&e));
            Failure { code: Code::Unknown, message, ..Failure::of_export(&e) }
        })
    }
}

/// An image that is asked for.
struct Image<'a> {
    reference: &'a str,
    platform: Option<&'a pb::Platform>,
    mode: &'a str,
    log_name: &'a str,
}
