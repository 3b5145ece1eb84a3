//! What a registry holds about a manifest: signatures, statements (OCI distribution spec, "Listing Referrers").

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::ACCEPT;
use solver::Digest;

use super::endpoint::{Endpoint, first_that_answers};
use super::http::{Call, failure, read_limited};
use super::{Client, Error};
use crate::oci::{Descriptor, Document, MANIFEST_LIMIT, Reference, media_type};

impl Client {
    /// The manifests that are about the manifest `digest` of a repository; none where the registry knows of none.
    ///
    /// Registries without such lists have an index under a tag that is made of the digest.
    ///
    /// # Errors
    /// Why the registry could not be asked, or its answer not be used.
    pub async fn referrers(&self, reference: &Reference, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        let endpoints = self.transport.for_pull(reference.domain())?;
        let tag = digest.to_string().replace(':', "-");
        let places = [format!("referrers/{digest}"), format!("manifests/{tag}")];
        let (places, reference) = (&places, &reference);
        first_that_answers(&self.transport, endpoints, |endpoint| async move {
            for place in places {
                let ask = || self.referrers_at(&endpoint, reference, place);
                match self.transport.tuning.at(&endpoint).retry(ask).await {
                    Err(error) if error.is_not_found() => {}
                    answer => return answer,
                }
            }
            Ok(Vec::new())
        })
        .await
    }

    async fn referrers_at(
        &self,
        endpoint: &Arc<Endpoint>,
        reference: &Reference,
        place: &str,
    ) -> Result<Vec<Descriptor>, Error> {
        let (path, stall) = (reference.path(), self.transport.tuning.stall_timeout);
        let call = Call {
            method: Method::GET,
            url: endpoint.url(path, place)?,
            scopes: &[endpoint.scope(path, "pull")],
            timeout: stall,
            prepare: &|request| request.header(ACCEPT, media_type::OCI_INDEX),
        };
        let response = self.call(endpoint, call).await?;
        if !response.status().is_success() {
            let missing = || Error::ImageNotFound { reference: reference.to_string() };
            return Err(failure(endpoint, path, response, stall, missing).await);
        }
        let bytes =
            read_limited(&endpoint.host, response, MANIFEST_LIMIT, "a list of manifests", stall).await?;
        match Document::parse(&bytes, Some(media_type::OCI_INDEX)) {
            Ok(Document::Index(index)) => Ok(index.manifests),
            // Some other thing under that tag.
            Ok(Document::Manifest(_)) => Ok(Vec::new()),
            Err(source) => Err(Error::Document { reference: reference.to_string(), source }),
        }
    }
}
