//! Why the steps of builds ran.

use std::sync::Arc;

use proto::rbuild::explain_server::Explain;
use proto::rbuild::{ExplainRequest, ExplainResponse};
use tonic::{Request, Response, Status};

use crate::daemon::blocking::blocking;
use crate::daemon::control::store_status;
use crate::daemon::parts::Parts;

/// Tells why steps ran.
#[derive(Debug, Clone)]
pub(crate) struct ExplainService {
    /// What the daemon is made of.
    pub parts: Arc<Parts>,
}

#[tonic::async_trait]
impl Explain for ExplainService {
    async fn get(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let (explainer, build) = (self.parts.explainer.clone(), request.into_inner().r#ref);
        let asked = build.clone();
        let told = blocking(move || explainer.told(&asked)).await.map_err(store_status)?;
        let json = told.ok_or_else(|| match build.as_str() {
            "" => Status::not_found("no build is known"),
            build => Status::not_found(format!("nothing is known of a build `{build}`")),
        })?;
        Ok(Response::new(ExplainResponse { json }))
    }
}
