//! The second version of the service's protocol, and what it needs of that of Azure's storage.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cache::registry::Secret;
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::{Wish, malformed};
use super::{Api, Entry, Place, VERSION, parsed, query};
use crate::daemon::remote_cache::service::actions::ActionsError;

/// Where the calls are.
const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService";
/// The version of Azure's protocol that uploads speak; it allows blocks of [`super::PART`].
const AZURE_VERSION: (&str, &str) = ("x-ms-version", "2021-12-02");

impl Api {
    pub(super) async fn find_second(&self, key: &str) -> Result<Option<Entry>, ActionsError> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(default)]
            ok: bool,
            #[serde(default)]
            signed_download_url: String,
            #[serde(default)]
            matched_key: String,
        }
        let body = json!({ "key": key, "restore_keys": [key], "version": VERSION });
        let found: Found = parsed(key, &self.call("GetCacheEntryDownloadURL", key, body).await?)?;
        Ok(found.ok.then(|| Entry { key: found.matched_key, url: Secret::new(found.signed_download_url) }))
    }

    pub(super) async fn reserve_second(&self, key: &str) -> Result<String, ActionsError> {
        #[derive(Deserialize)]
        struct Reserved {
            #[serde(default)]
            ok: bool,
            #[serde(default)]
            signed_upload_url: String,
            #[serde(default)]
            message: String,
        }
        let body = json!({ "key": key, "version": VERSION });
        let reserved: Reserved = parsed(key, &self.call("CreateCacheEntry", key, body).await?)?;
        match reserved {
            Reserved { ok: true, signed_upload_url, .. } if !signed_upload_url.is_empty() => {
                Ok(signed_upload_url)
            }
            Reserved { ok: true, .. } => Err(malformed(key, "it does not say where the bytes go")),
            // In the form of a failure, so that one that says of an entry that it is there counts as that.
            Reserved { message, .. } => Err(ActionsError::Status {
                what: key.to_owned(),
                status: 200,
                reason: format!("failed to reserve cache {message}").trim_end().to_owned(),
            }),
        }
    }

    /// Writes a block, and gives its name.
    pub(super) async fn block(
        &self,
        place: &Place,
        number: usize,
        bytes: Bytes,
    ) -> Result<String, ActionsError> {
        // All names of a blob's blocks have to be of one length.
        let name = STANDARD.encode(format!("{number:08}"));
        self.azure(place, &query(&[("comp", "block"), ("blockid", &name)]), bytes).await?;
        Ok(name)
    }

    /// Makes a blob of blocks.
    pub(super) async fn block_list(&self, place: &Place, blocks: &[String]) -> Result<(), ActionsError> {
        let list: String = blocks.iter().map(|block| format!("<Latest>{block}</Latest>")).collect();
        let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{list}</BlockList>");
        self.azure(place, "comp=blocklist", list.into()).await
    }

    pub(super) async fn commit_second(&self, place: &Place, size: u64) -> Result<(), ActionsError> {
        #[derive(Deserialize)]
        struct Committed {
            #[serde(default)]
            ok: bool,
        }
        let body = json!({ "key": place.key, "size_bytes": size, "version": VERSION });
        let answer = self.call("FinalizeCacheEntryUpload", &place.key, body).await?;
        match parsed(&place.key, &answer)? {
            Committed { ok: true } => Ok(()),
            Committed { ok: false } => Err(malformed(&place.key, "failed to commit cache")),
        }
    }

    async fn call(&self, call: &str, what: &str, body: Value) -> Result<Vec<u8>, ActionsError> {
        let url = format!("{}/{SERVICE}/{call}", self.url);
        let prepare = |request: RequestBuilder| request.bearer_auth(self.token.expose()).json(&body);
        let wish = Wish { what, method: Method::POST, url: &url, timeout: self.timeout };
        wish.answer(&self.http, &prepare).await
    }

    /// A request to the storage. Its URL says who we are: with our token in addition it would be refused.
    async fn azure(&self, place: &Place, query: &str, body: Bytes) -> Result<(), ActionsError> {
        let url = place.to.expose();
        let url = format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' });
        let prepare =
            |request: RequestBuilder| request.header(AZURE_VERSION.0, AZURE_VERSION.1).body(body.clone());
        let wish = Wish { what: &place.key, method: Method::PUT, url: &url, timeout: self.timeout };
        wish.answer(&self.http, &prepare).await.map(drop)
    }
}
