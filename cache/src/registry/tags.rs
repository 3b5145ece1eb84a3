//! What a repository has tags for (OCI distribution spec, "Listing Tags").

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::LINK;
use serde::Deserialize;

use super::endpoint::{Endpoint, first_that_answers};
use super::http::{Call, failure, read_limited};
use super::{Client, Error};
use crate::oci::Reference;

/// How many tags are asked for at a time. Registries give as many as they like, some of them all.
const PAGE: usize = 1000;
/// How large an answer may be, in bytes.
const PAGE_LIMIT: u64 = 32 << 20;
/// After so many pages a list is taken as it is.
const PAGES: usize = 1000;

/// An answer. Registries say `null` where there are none.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// The tags of a repository that begin with `prefix`, in the registry's order; none of a repository that is not there.
    ///
    /// # Errors
    /// Why the registry could not be asked, or its answer not be used.
    pub async fn tags(&self, reference: &Reference, prefix: &str) -> Result<Vec<String>, Error> {
        let endpoints = self.transport.for_pull(reference.domain())?;
        let found = first_that_answers(&self.transport, endpoints, |endpoint| async move {
            let mut found = Vec::new();
            // Registries that give pages go in the order of the alphabet.
            let mut last: Option<String> = (!prefix.is_empty()).then(|| prefix.to_owned());
            for _ in 0..PAGES {
                let from = last.as_ref().map_or(String::new(), |last| format!("&last={last}"));
                let place = format!("tags/list?n={PAGE}{from}");
                let ask = || self.tags_at(&endpoint, reference, &place);
                let (tags, more) = self.transport.tuning.at(&endpoint).retry(ask).await?;
                let end = tags.last().cloned();
                found.extend(tags.into_iter().filter(|tag| tag.starts_with(prefix)));
                let beyond = end.as_deref().is_none_or(|end| !end.starts_with(prefix) && end > prefix);
                if !more || beyond || end == last {
                    break;
                }
                last = end;
            }
            Ok(found)
        });
        match found.await {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            found => found,
        }
    }

    async fn tags_at(
        &self,
        endpoint: &Arc<Endpoint>,
        reference: &Reference,
        place: &str,
    ) -> Result<(Vec<String>, bool), Error> {
        let (path, stall) = (reference.path(), self.transport.tuning.stall_timeout);
        let call = Call {
            method: Method::GET,
            url: endpoint.url(path, place)?,
            scopes: &[endpoint.scope(path, "pull")],
            timeout: stall,
            prepare: &|request| request,
        };
        let response = self.call(endpoint, call).await?;
        if !response.status().is_success() {
            let missing = || Error::ImageNotFound { reference: reference.to_string() };
            return Err(failure(endpoint, path, response, stall, missing).await);
        }
        let more = response.headers().contains_key(LINK);
        let bytes = read_limited(&endpoint.host, response, PAGE_LIMIT, "a list of tags", stall).await?;
        // What is no such list has no tags.
        let page = serde_json::from_slice::<Page>(&bytes).ok();
        Ok((page.and_then(|page| page.tags).unwrap_or_default(), more))
    }
}
