//! The service's two protocols, behind the same five calls.

mod download;
mod first;
mod list;
mod request;
mod second;

use std::time::Duration;

use bytes::Bytes;
use cache::objects::http_client;
use cache::registry::Secret;
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::ActionsError;
use request::malformed;

/// SHA-256 of `|go-actionscache-1.0`, BuildKit's: entries of other versions are never found.
const VERSION: &str = "693bb7016429d80366022f036f84856888c9f13e00145f5f6f4dce303a38d6f2";
/// How large a part of an upload is, in bytes: it is kept in memory meanwhile.
const PART: u64 = 16 << 20;

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Api {
    http: reqwest::Client,
    url: String,
    protocol: Protocol,
    token: Secret,
    /// How long a request is tried.
    timeout: Duration,
}

/// What the service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// `_apis/artifactcache`, through which all bytes go.
    First,
    /// Twirp, with signed URLs of Azure's storage for the bytes.
    Second,
}

/// An entry that is there.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its whole key.
    key: String,
    /// Where its bytes are: whoever knows it has them.
    url: Secret,
}

/// An entry that is being written.
#[derive(Debug)]
pub(super) struct Place {
    key: String,
    /// The entry's number in the first protocol, else where its bytes go.
    to: Secret,
}

impl Entry {
    /// Whether it is the one of this very key.
    pub(super) fn is(&self, key: &str) -> bool {
        self.key == key
    }

    /// Its whole key.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The number of a config's entry.
    ///
    /// # Errors
    /// It has none.
    pub(super) fn number(&self, index: &str) -> Result<u64, ActionsError> {
        let number = self.key.strip_prefix(index).and_then(|rest| rest.strip_prefix('#')?.parse().ok());
        number.ok_or_else(|| malformed(index, "the newest entry has no number"))
    }
}

impl Api {
    /// The service at `url`.
    ///
    /// # Errors
    /// The system's TLS authorities cannot be read.
    pub(super) fn new(
        url: &str,
        protocol: Protocol,
        token: Secret,
        timeout: Duration,
    ) -> Result<Self, ActionsError> {
        let http = http_client(url).map_err(|e| request::unreachable("a connection", e))?;
        Ok(Self { http, url: url.to_owned(), protocol, token, timeout })
    }

    /// The newest entry whose key begins with `key`.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub(super) async fn find(&self, key: &str) -> Result<Option<Entry>, ActionsError> {
        let found = match self.protocol {
            Protocol::First => self.find_first(key).await?,
            Protocol::Second => self.find_second(key).await?,
        };
        Ok(found.filter(|entry| !entry.key.is_empty()))
    }

    /// Begins to write an entry; `None` where one is there or is being written.
    ///
    /// # Errors
    /// Why the service does not take it.
    pub(super) async fn reserve(&self, key: &str) -> Result<Option<Place>, ActionsError> {
        let reserved = match self.protocol {
            Protocol::First => self.reserve_first(key).await,
            Protocol::Second => self.reserve_second(key).await,
        };
        match reserved {
            Ok(to) => Ok(Some(Place { key: key.to_owned(), to: Secret::new(to) })),
            Err(ActionsError::Status { status, reason, .. }) if is_there(status, &reason) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the `size` bytes of an entry.
    ///
    /// # Errors
    /// What cannot be read; why the service does not take it.
    pub(super) async fn upload(
        &self,
        place: &Place,
        size: u64,
        from: &mut (impl AsyncRead + Send + Unpin),
    ) -> Result<(), ActionsError> {
        let (mut at, mut blocks) = (0, Vec::new());
        while at < size {
            let length = PART.min(size - at);
            let mut part = vec![0; usize::try_from(length).unwrap_or_default()];
            from.read_exact(&mut part).await.map_err(ActionsError::Source)?;
            let part = Bytes::from(part);
            match self.protocol {
                Protocol::First => self.part(place, at, part).await?,
                Protocol::Second => blocks.push(self.block(place, blocks.len(), part).await?),
            }
            at += length;
        }
        match self.protocol {
            Protocol::First => Ok(()),
            Protocol::Second => self.block_list(place, &blocks).await,
        }
    }

    /// Writes a whole entry; whether it was written, or one is there or is being written.
    ///
    /// # Errors
    /// What cannot be read; why the service does not take it.
    pub(super) async fn put(
        &self,
        key: &str,
        size: u64,
        from: &mut (impl AsyncRead + Send + Unpin),
    ) -> Result<bool, ActionsError> {
        let Some(place) = self.reserve(key).await? else { return Ok(false) };
        self.upload(&place, size, from).await?;
        self.commit(&place, size).await?;
        Ok(true)
    }

    /// Makes an entry appear.
    ///
    /// # Errors
    /// Why the service does not take it.
    pub(super) async fn commit(&self, place: &Place, size: u64) -> Result<(), ActionsError> {
        match self.protocol {
            Protocol::First => self.commit_first(place, size).await,
            Protocol::Second => self.commit_second(place, size).await,
        }
    }
}

/// Whether an answer says that there is such an entry already.
fn is_there(status: u16, said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    status == StatusCode::CONFLICT.as_u16()
        || ["already exists", "already_exists", "alreadyexists"].iter().any(|words| said.contains(words))
}

fn query(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn parsed<T: for<'de> Deserialize<'de>>(what: &str, bytes: &[u8]) -> Result<T, ActionsError> {
    serde_json::from_slice(bytes).map_err(|error| malformed(what, &error.to_string()))
}
