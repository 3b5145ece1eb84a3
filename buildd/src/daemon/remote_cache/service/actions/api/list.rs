//! GitHub's REST API, which lists entries.

use cache::registry::Secret;
use reqwest::header::ACCEPT;
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;

use super::request::Wish;
use super::{Api, parsed, query};
use crate::daemon::remote_cache::service::actions::ActionsError;

/// How many keys are listed at a time; GitHub's limit.
const PAGE: u64 = 100;

impl Api {
    /// The keys of a branch's entries that begin with `prefix`; `rest` is where the API is.
    ///
    /// # Errors
    /// Why they are not told.
    pub(in super::super) async fn list(
        &self,
        rest: &str,
        repository: &str,
        token: &Secret,
        prefix: &str,
        branch: &str,
    ) -> Result<Vec<String>, ActionsError> {
        #[derive(Deserialize)]
        struct Listed {
            total_count: u64,
            actions_caches: Vec<Named>,
        }
        #[derive(Deserialize)]
        struct Named {
            key: String,
        }
        let prepare = |request: RequestBuilder| {
            request
                .bearer_auth(token.expose())
                .header(ACCEPT, "application/vnd.github+json")
                .header("X-GitHub-Api-Version", "2022-11-28")
        };
        let mut keys = Vec::new();
        for page in 1.. {
            let (size, number) = (PAGE.to_string(), page.to_string());
            let query = query(&[("per_page", &size), ("page", &number), ("key", prefix), ("ref", branch)]);
            let url = format!("{}/repos/{repository}/actions/caches?{query}", rest.trim_end_matches('/'));
            let wish = Wish { what: "a list", method: Method::GET, url: &url, timeout: self.timeout };
            let listed: Listed = parsed("a list", &wish.answer(&self.http, &prepare).await?)?;
            let is_last = listed.actions_caches.is_empty() || listed.total_count <= page * PAGE;
            keys.extend(listed.actions_caches.into_iter().map(|named| named.key));
            if is_last {
                break;
            }
        }
        Ok(keys)
    }
}
