//! The first version of the service's protocol.

use bytes::Bytes;
use cache::registry::Secret;
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::{Wish, malformed};
use super::{Api, Entry, Place, VERSION, parsed, query};
use crate::daemon::remote_cache::service::actions::ActionsError;

/// The form of answers.
const MEDIA_TYPE: &str = "application/json;api-version=6.0-preview.1";

/// What a request says.
enum Body {
    None,
    Json(Value),
    /// Bytes, and where in the entry they are.
    Part(String, Bytes),
}

impl Api {
    pub(super) async fn find_first(&self, key: &str) -> Result<Option<Entry>, ActionsError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[derive(Default)]
        struct Found {
            cache_key: String,
            archive_location: String,
        }
        let path = format!("cache?{}", query(&[("keys", key), ("version", VERSION)]));
        let answer = self.first(Method::GET, &path, key, Body::None).await?;
        // 204 where there is none.
        if answer.is_empty() {
            return Ok(None);
        }
        let found: Found = parsed(key, &answer)?;
        Ok(Some(Entry { key: found.cache_key, url: Secret::new(found.archive_location) }))
    }

    pub(super) async fn reserve_first(&self, key: &str) -> Result<String, ActionsError> {
        #[derive(Deserialize)]
        struct Reserved {
            // Go's readers take either, and so do servers write either.
            #[serde(default, rename = "cacheId", alias = "cacheID")]
            id: i64,
        }
        let body = Body::Json(json!({ "key": key, "version": VERSION }));
        let reserved: Reserved = parsed(key, &self.first(Method::POST, "caches", key, body).await?)?;
        match reserved.id {
            0 => Err(malformed(key, "it does not say which entry")),
            id => Ok(id.to_string()),
        }
    }

    /// Writes the bytes from `at` on.
    pub(super) async fn part(&self, place: &Place, at: u64, bytes: Bytes) -> Result<(), ActionsError> {
        let range = format!("bytes {at}-{}/*", at + bytes.len() as u64 - 1);
        let path = format!("caches/{}", place.to.expose());
        self.first(Method::PATCH, &path, &place.key, Body::Part(range, bytes)).await.map(drop)
    }

    pub(super) async fn commit_first(&self, place: &Place, size: u64) -> Result<(), ActionsError> {
        let path = format!("caches/{}", place.to.expose());
        let body = Body::Json(json!({ "size": size }));
        self.first(Method::POST, &path, &place.key, body).await.map(drop)
    }

    async fn first(
        &self,
        method: Method,
        path: &str,
        what: &str,
        body: Body,
    ) -> Result<Vec<u8>, ActionsError> {
        let url = format!("{}/_apis/artifactcache/{path}", self.url);
        let prepare = |request: RequestBuilder| {
            let request = request.bearer_auth(self.token.expose()).header(ACCEPT, MEDIA_TYPE);
            match &body {
                Body::None => request,
                Body::Json(value) => request.json(value),
                Body::Part(range, bytes) => request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_RANGE, range)
                    .body(bytes.clone()),
            }
        };
        Wish { what, method, url: &url, timeout: self.timeout }.answer(&self.http, &prepare).await
    }
}
