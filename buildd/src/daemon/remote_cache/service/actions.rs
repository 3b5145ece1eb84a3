//! Caches at GitHub's cache service, in the form of `cache/remotecache/gha` of BuildKit.
//!
//! Entries are written once. A config is therefore a row of entries, `KEY#1`, `KEY#2`, …, of which the newest counts. Each branch has
//! entries of its own and reads those of the branches above it: a token names them all.

mod api;
mod entries;
mod error;
mod token;

use std::collections::HashSet;
use std::time::Duration;

use cache::oci::Descriptor;
use cache::registry::Secret;
use cache::remote::CacheConfig;
use futures_util::future::try_join_all;
use solver::Digest;
use tokio::sync::OnceCell;

use super::attrs::{Attrs, WrongAttr};
use super::{Blob, ServiceError, config};
use api::{Api, Entry, Place, Protocol};
pub(in crate::daemon) use entries::ActionsEntries;
pub(in crate::daemon) use error::ActionsError;
use token::Token;

/// How long a request is tried at most (BuildKit's default).
const TIMEOUT: Duration = Duration::from_mins(10);
/// How many layers are written at a time.
pub(super) const PARALLEL: usize = 4;
/// How large a cache's config may be, in bytes.
const CONFIG_LIMIT: u64 = 64 << 20;
/// How long another writer of a config is waited for; longer ago it was killed half way.
const WRITER_TIMEOUT: Duration = Duration::from_secs(15);
/// Between looks whether another writer has finished.
const WRITER_PAUSE: Duration = Duration::from_secs(2);
/// How many entries that others began and never ended are passed over.
const MAX_ABANDONED: u32 = 100;
/// The part of a URL that tells the second version of the service.
const V2_HOST: &str = "results-receiver.actions.githubusercontent.com";
/// Before the digests of blobs.
const BLOBS: &str = "buildkit-blob-1-";

/// A cache at GitHub's service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct ActionsCache {
    /// Which of a branch's caches.
    scope: String,
    url: String,
    protocol: Protocol,
    token: Secret,
    timeout: Duration,
    /// The repository, and a token for GitHub's REST API, which lists entries: fewer questions.
    listing: Option<(String, Secret)>,
    /// Where that API is.
    rest_url: String,
}

/// GitHub's service that is talked to.
#[derive(Debug)]
pub(in crate::daemon) struct ActionsStore {
    cache: ActionsCache,
    token: Token,
    api: Api,
    /// The keys of all blobs, where they can be listed.
    known: OnceCell<Option<HashSet<String>>>,
}

impl ActionsCache {
    /// A cache at GitHub's service (`getConfig` of BuildKit's `cache/remotecache/gha/gha.go`).
    pub(in crate::daemon) fn read(attrs: &Attrs<'_>) -> Result<Self, WrongAttr> {
        let wrong = |what: &str| WrongAttr(what.to_owned());
        let token = attrs.get("token").ok_or_else(|| wrong("token not set for github actions cache"))?;
        let version = match attrs.get("version") {
            None => 0,
            Some(text) => text.parse::<u32>().map_err(|_| {
                WrongAttr(format!("failed to parse api version \"{text}\", expected positive integer"))
            })?,
        };
        let second = attrs.get("url_v2").filter(|_| version != 1);
        let is_second = second.is_some() || version > 1;
        let url = second.or_else(|| attrs.get("url"));
        let url = url.ok_or_else(|| wrong("url not set for github actions cache"))?;
        let protocol = match is_second || (version == 0 && url.contains(V2_HOST)) {
            true => Protocol::Second,
            false => Protocol::First,
        };
        let timeout = match attrs.attrs.get("timeout") {
            None => TIMEOUT,
            Some(_) => attrs
                .duration("timeout")
                .ok_or_else(|| wrong("failed to parse timeout for github actions cache"))?,
        };
        let listing = attrs.get("repository").zip(attrs.get("ghtoken").map(Secret::new));
        let rest_url = (attrs.env)("GITHUB_API_URL").filter(|url| !url.is_empty());
        Ok(Self {
            scope: attrs.or("scope", "buildkit"),
            url: url.trim_end_matches('/').to_owned(),
            protocol,
            token: Secret::new(token),
            timeout,
            listing,
            rest_url: rest_url.unwrap_or_else(|| "https://api.github.com".to_owned()),
        })
    }

    pub(super) fn name(&self) -> String {
        format!("gha:{}", self.scope)
    }

    pub(super) fn open(&self) -> Result<ActionsStore, ActionsError> {
        let (token, api) = self.enter()?;
        Ok(ActionsStore { cache: self.clone(), token, api, known: OnceCell::new() })
    }

    fn enter(&self) -> Result<(Token, Api), ActionsError> {
        let token = Token::parse(self.token.expose())?;
        Ok((token, Api::new(&self.url, self.protocol, self.token.clone(), self.timeout)?))
    }

    /// The keys of all entries that begin with `prefix` and that `token` may read; `None` where they cannot be listed, which is slower
    /// and no more.
    async fn list(&self, api: &Api, token: &Token, prefix: &str) -> Option<HashSet<String>> {
        let (repository, rest_token) = self.listing.as_ref()?;
        let of_branch = |branch| api.list(&self.rest_url, repository, rest_token, prefix, branch);
        match try_join_all(token.readable().map(of_branch)).await {
            Ok(keys) => Some(keys.into_iter().flatten().collect()),
            Err(error) => {
                tracing::warn!("cannot list the caches of `{repository}`: {error}");
                None
            }
        }
    }

    /// What the keys of a branch's configs begin with.
    fn index(&self, branch: &str) -> String {
        let branch = Digest::of(branch.as_bytes()).hex();
        format!("index-{}-1-{}", self.scope, &branch[..8])
    }
}

fn key(blob: &Descriptor) -> String {
    format!("{BLOBS}{}", blob.digest)
}

impl ActionsStore {
    /// Whether a cache may be written at all, before there is much to write.
    pub(super) fn prepare(&self) -> Result<(), ServiceError> {
        self.token.writable()?;
        Ok(())
    }

    /// The configs of this branch and of those above it, as far as there are any.
    pub(super) async fn configs(&self) -> Result<Vec<CacheConfig>, ServiceError> {
        let of_branch = async |branch: &str| {
            let Some(entry) = self.newest(&self.cache.index(branch)).await? else { return Ok(None) };
            config(&self.api.bytes(entry, CONFIG_LIMIT).await?).map(Some)
        };
        let configs: Vec<Option<CacheConfig>> = try_join_all(self.token.readable().map(of_branch)).await?;
        Ok(configs.into_iter().flatten().collect())
    }

    /// The config's entry that counts.
    async fn newest(&self, index: &str) -> Result<Option<Entry>, ActionsError> {
        self.api.find(&format!("{index}#")).await
    }

    pub(super) async fn has(&self, blob: &Descriptor) -> Result<bool, ServiceError> {
        let key = key(blob);
        if let Some(known) = self.known.get_or_init(|| self.cache.list(&self.api, &self.token, BLOBS)).await {
            return Ok(known.contains(&key));
        }
        Ok(self.api.find(&key).await?.is_some())
    }

    pub(super) async fn put(&self, blob: &Descriptor, mut file: tokio::fs::File) -> Result<(), ServiceError> {
        // Another build may have been quicker.
        self.api.put(&key(blob), blob.size, &mut file).await?;
        Ok(())
    }

    pub(super) async fn finish(&self, mut json: &[u8]) -> Result<(), ServiceError> {
        let place = self.reserve_config().await?;
        let size = json.len() as u64;
        self.api.upload(&place, size, &mut json).await?;
        Ok(self.api.commit(&place, size).await?)
    }

    /// The entry after the newest. One that somebody else is writing is waited for, so that what that one says is not newer.
    async fn reserve_config(&self) -> Result<Place, ActionsError> {
        let index = self.cache.index(self.token.writable()?);
        let mut waited = Duration::ZERO;
        loop {
            let newest = self.newest(&index).await?;
            let mut number = newest.map_or(Ok(0), |entry| entry.number(&index))?;
            if let Some(place) = self.reserve_number(&index, number + 1).await? {
                return Ok(place);
            }
            if waited < WRITER_TIMEOUT {
                tokio::time::sleep(WRITER_PAUSE).await;
                waited += WRITER_PAUSE;
                continue;
            }
            for _ in 0..MAX_ABANDONED {
                number += 1;
                if let Some(place) = self.reserve_number(&index, number + 1).await? {
                    return Ok(place);
                }
            }
            return Err(ActionsError::Abandoned(index));
        }
    }

    async fn reserve_number(&self, index: &str, number: u64) -> Result<Option<Place>, ActionsError> {
        self.api.reserve(&format!("{index}#{number}")).await
    }

    pub(super) async fn blob(&self, blob: &Descriptor) -> Result<Blob, ServiceError> {
        let key = key(blob);
        let found = self.api.find(&key).await?;
        let entry = found.ok_or(ActionsError::Missing(key))?;
        Ok(self.api.read(entry, blob.size).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attrs: &[(&str, &str)]) -> Result<ActionsCache, String> {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ActionsCache::read(&Attrs { attrs: &attrs, env: &|_| None }).map_err(|e| e.to_string())
    }

    #[test]
    fn which_version() {
        for (attrs, want) in [
            (&[("url", "https://a.example/x/")][..], ("https://a.example/x", Protocol::First)),
            (
                &[("url", "https://results-receiver.actions.githubusercontent.com")],
                ("https://results-receiver.actions.githubusercontent.com", Protocol::Second),
            ),
            (
                &[("url", "https://a.example"), ("url_v2", "https://b.example")],
                ("https://b.example", Protocol::Second),
            ),
            (
                &[("url", "https://a.example"), ("url_v2", "https://b.example"), ("version", "1")],
                ("https://a.example", Protocol::First),
            ),
            (&[("url", "https://a.example"), ("version", "2")], ("https://a.example", Protocol::Second)),
        ] {
            let cache = read(&[&[("token", "t")], attrs].concat()).unwrap();
            assert_eq!((cache.url.as_str(), cache.protocol), want, "{attrs:?}");
        }
    }

    #[test]
    fn what_cannot_be() {
        for (attrs, want) in [
            (&[("url", "u")][..], "token not set for github actions cache"),
            (&[("token", "t")], "url not set for github actions cache"),
            (
                &[("token", "t"), ("url", "u"), ("version", "x")],
                "failed to parse api version \"x\", expected positive integer",
            ),
            (
                &[("token", "t"), ("url", "u"), ("timeout", "soon")],
                "failed to parse timeout for github actions cache",
            ),
        ] {
            assert_eq!(read(attrs).unwrap_err(), want);
        }
        let shown = format!("{:?}", read(&[("token", "geheim"), ("url", "u")]).unwrap());
        assert!(!shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn keys_are_those_of_buildkit() {
        let cache = read(&[("token", "t"), ("url", "u"), ("scope", "s")]).unwrap();
        // The first eight digits of SHA-256 of the branch's name.
        assert_eq!(cache.index(""), "index-s-1-e3b0c442");
    }
}
