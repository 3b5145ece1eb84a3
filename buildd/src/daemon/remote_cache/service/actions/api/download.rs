//! The bytes of entries, from the URLs that the service gives.

use futures_util::stream::try_unfold;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

use super::request::{Wish, malformed, unreachable};
use super::{Api, Entry};
use crate::daemon::remote_cache::service::Blob;
use crate::daemon::remote_cache::service::actions::ActionsError;

/// How often a download that broke is taken up again.
const MAX_BREAKS: u32 = 5;

/// A download under way.
struct Download {
    api: Api,
    entry: Entry,
    response: Response,
    /// How many bytes have come.
    at: u64,
    breaks: u32,
}

impl Api {
    /// All bytes of an entry.
    ///
    /// # Errors
    /// More than `limit` bytes; why they cannot be had.
    pub(in super::super) async fn bytes(&self, entry: Entry, limit: u64) -> Result<Vec<u8>, ActionsError> {
        let mut bytes = Vec::new();
        let blob = self.read(entry, limit + 1).await?;
        blob.take(limit + 1).read_to_end(&mut bytes).await.map_err(ActionsError::Broken)?;
        match bytes.len() as u64 > limit {
            true => Err(ActionsError::TooLarge { limit }),
            false => Ok(bytes),
        }
    }

    /// The bytes of an entry as they come, `size` or a little more. A connection that breaks is opened again where it broke.
    ///
    /// # Errors
    /// Why the first of them cannot be had; what comes later comes while reading.
    pub(in super::super) async fn read(&self, entry: Entry, size: u64) -> Result<Blob, ActionsError> {
        let response = self.open(&entry, 0).await?;
        let download = Download { api: self.clone(), entry, response, at: 0, breaks: 0 };
        let stream = try_unfold(download, move |mut download| async move {
            let chunk = download.next(size).await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(chunk.map(|chunk| (chunk, download)))
        });
        Ok(Box::pin(StreamReader::new(Box::pin(stream))))
    }

    /// The bytes of an entry from `at` on.
    async fn open(&self, entry: &Entry, at: u64) -> Result<Response, ActionsError> {
        let url = entry.url.expose();
        let wish = Wish { what: &entry.key, method: Method::GET, url, timeout: self.timeout };
        if at == 0 {
            return wish.send(&self.http, &|request| request).await;
        }
        let response =
            wish.send(&self.http, &|request| request.header(RANGE, format!("bytes={at}-"))).await?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        match range.is_some_and(|range| range.starts_with(&format!("bytes {at}-"))) {
            true => Ok(response),
            false => Err(malformed(&entry.key, "it begins elsewhere")),
        }
    }
}

impl Download {
    async fn next(&mut self, size: u64) -> Result<Option<bytes::Bytes>, ActionsError> {
        while self.at < size {
            match self.response.chunk().await {
                Ok(Some(chunk)) => {
                    self.at += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Ok(None) => break,
                Err(error) if self.breaks >= MAX_BREAKS => return Err(unreachable(&self.entry.key, error)),
                Err(_) => self.breaks += 1,
            }
            // The URL is good for some minutes only.
            if let Some(again) = self.api.find(&self.entry.key).await? {
                self.entry = again;
            }
            self.response = self.api.open(&self.entry, self.at).await?;
        }
        Ok(None)
    }
}
