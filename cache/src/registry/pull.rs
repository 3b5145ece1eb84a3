//! Blobs as verified streams that survive broken connections.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use solver::Digest;
use tokio_util::io::StreamReader;

use super::endpoint::{Endpoint, authority, first_that_answers};
use super::http::{Call, failure};
use super::{Client, Direction, Error, Transfer};
use crate::oci::{Descriptor, Reference, media_type};

/// How often the connection for one blob may break, however far it came each time.
const MAX_BREAKS: u32 = 50;

/// The bytes of a blob. It ends well only if digest and size are right.
pub struct BlobStream {
    client: Client,
    reference: Reference,
    descriptor: Descriptor,
    hash: Sha256,
    offset: u64,
    response: Option<Response>,
    /// Bytes of the response that came before it broke, and come again.
    skip: u64,
    /// Attempts since the last byte came.
    attempts: u32,
    /// Connections broken so far.
    breaks: u32,
    done: bool,
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptor, offset, .. } = self;
        f.debug_struct("BlobStream").field("digest", &descriptor.digest).field("offset", offset).finish()
    }
}

impl Client {
    /// Whether the registry itself (no mirror) has a blob.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub async fn blob_exists(&self, reference: &Reference, digest: &Digest) -> Result<bool, Error> {
        let endpoints = self.transport.for_push(reference.domain())?;
        first_that_answers(&self.transport, endpoints, |endpoint| async move {
            self.transport.tuning.retry(|| self.blob_exists_at(&endpoint, reference.path(), digest)).await
        })
        .await
    }

    pub(super) async fn blob_exists_at(
        &self,
        endpoint: &Endpoint,
        path: &str,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let stall = self.transport.tuning.stall_timeout;
        let call = Call {
            method: Method::HEAD,
            url: endpoint.url(path, &format!("blobs/{digest}"))?,
            scopes: &[endpoint.scope(path, "pull,push")],
            timeout: stall,
            prepare: &|request| request,
        };
        let response = self.call(endpoint, call).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => {
                let missing = || Error::BlobNotFound { digest: *digest, repository: path.to_owned() };
                Err(failure(endpoint, path, response, stall, missing).await)
            }
        }
    }

    /// Starts to fetch a blob; the first request is made when the stream is first read.
    ///
    /// # Errors
    /// The registry's configuration cannot be used.
    pub fn fetch_blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<BlobStream, Error> {
        self.transport.for_pull(reference.domain())?;
        Ok(BlobStream {
            client: self.clone(),
            reference: reference.clone(),
            descriptor: descriptor.clone(),
            hash: Sha256::new(),
            offset: 0,
            response: None,
            skip: 0,
            attempts: 0,
            breaks: 0,
            done: false,
        })
    }
}

impl BlobStream {
    /// The next bytes; none at the end, which comes only after digest and size were found right.
    ///
    /// A broken connection is opened again where it broke. After an error there is nothing more to read.
    ///
    /// # Errors
    /// Why the blob could not be had, or [`Error::DigestMismatch`] and [`Error::SizeMismatch`].
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while !self.done {
            match self.attempt().await {
                Ok(Some(chunk)) => return Ok(Some(chunk)),
                Ok(None) => self.done = true,
                Err(error) => {
                    self.response = None;
                    self.attempts += 1;
                    self.breaks += 1;
                    if self.breaks > MAX_BREAKS {
                        self.done = true;
                        return Err(error);
                    }
                    let Some(wait) = self.client.transport.tuning.wait(self.attempts, &error) else {
                        self.done = true;
                        return Err(error);
                    };
                    tracing::debug!(digest = %self.descriptor.digest, offset = self.offset, %error, "blob is resumed");
                    tokio::time::sleep(wait).await;
                }
            }
        }
        Ok(None)
    }

    /// The same as a stream.
    pub fn into_stream(self) -> Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>> {
        Box::pin(try_unfold(self, |mut blob| async move {
            Ok(blob.next_chunk().await?.map(|chunk| (chunk, blob)))
        }))
    }

    /// The same as a reader; errors are [`Error`]s within `io::Error`s.
    pub fn into_reader(self) -> Pin<Box<dyn tokio::io::AsyncBufRead + Send>> {
        let stream = try_unfold(self, |mut blob| async move {
            let chunk = blob.next_chunk().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(chunk.map(|chunk| (chunk, blob)))
        });
        Box::pin(StreamReader::new(Box::pin(stream)))
    }

    async fn attempt(&mut self) -> Result<Option<Bytes>, Error> {
        // An empty blob is known without asking.
        if self.offset == self.descriptor.size && self.response.is_none() {
            return self.finish().map(|()| None);
        }
        if self.response.is_none() {
            let response = self.open().await?;
            self.skip = self.skipped(&response)?;
            self.response = Some(response);
        }
        let response = self.response.as_mut().expect("it has just been opened");
        let host = authority(response.url());
        let stall = self.client.transport.tuning.stall_timeout;
        let chunk = match tokio::time::timeout(stall, response.chunk()).await {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(error)) => return Err(Error::from_http(&host, error)),
            Err(_) => return Err(Error::Stalled { host, limit: stall }),
        };
        match chunk {
            Some(chunk) => self.accept(&host, chunk).map(Some),
            None => self.finish().map(|()| None),
        }
    }

    fn accept(&mut self, host: &str, mut chunk: Bytes) -> Result<Bytes, Error> {
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
        self.skip -= known as u64;
        let chunk = chunk.split_off(known);
        if chunk.is_empty() {
            return Ok(chunk);
        }
        self.hash.update(&chunk);
        self.offset += chunk.len() as u64;
        self.attempts = 0;
        let Descriptor { digest, size, .. } = &self.descriptor;
        if self.offset > *size {
            return Err(self.wrong_size(host));
        }
        if let Some(progress) = &self.client.progress {
            let direction = Direction::Pull;
            progress(Transfer { digest: *digest, direction, current: self.offset, total: *size });
        }
        Ok(chunk)
    }

    fn finish(&mut self) -> Result<(), Error> {
        let host = self.host();
        if self.offset != self.descriptor.size {
            return Err(self.wrong_size(&host));
        }
        let actual = Digest::from_bytes(std::mem::take(&mut self.hash).finalize().into());
        match actual == self.descriptor.digest {
            true => Ok(()),
            false => Err(Error::DigestMismatch { host, expected: self.descriptor.digest, actual }),
        }
    }

    fn wrong_size(&self, host: &str) -> Error {
        Error::SizeMismatch {
            host: host.to_owned(),
            digest: self.descriptor.digest,
            expected: self.descriptor.size,
            actual: self.offset,
        }
    }

    fn host(&self) -> String {
        let response = self.response.as_ref();
        response.map_or_else(|| self.reference.domain().to_owned(), |response| authority(response.url()))
    }

    /// Opens the blob where it broke off, at a mirror, the registry, or a foreign layer's own place.
    async fn open(&self) -> Result<Response, Error> {
        let transport = &self.client.transport;
        let endpoints = transport.for_pull(self.reference.domain())?;
        let result = first_that_answers(transport, endpoints, |endpoint| self.open_at(endpoint)).await;
        match result {
            Err(error)
                if error.is_not_found() && media_type::is_foreign_layer(&self.descriptor.media_type) =>
            {
                self.open_foreign().await.unwrap_or(Err(error))
            }
            other => other,
        }
    }

    async fn open_at(&self, endpoint: Arc<Endpoint>) -> Result<Response, Error> {
        let path = self.reference.path();
        let digest = self.descriptor.digest;
        let stall = self.client.transport.tuning.stall_timeout;
        let call = Call {
            method: Method::GET,
            url: endpoint.url(path, &format!("blobs/{digest}"))?,
            scopes: &[endpoint.scope(path, "pull")],
            timeout: stall,
            prepare: &|request| self.with_range(request),
        };
        let response = self.client.call(&endpoint, call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let missing = || Error::BlobNotFound { digest, repository: self.reference.repository() };
        Err(failure(&endpoint, path, response, stall, missing).await)
    }

    /// Fetches a foreign layer from its own URLs: HTTPS only, and never with credentials.
    async fn open_foreign(&self) -> Option<Result<Response, Error>> {
        let mut last = None;
        for url in &self.descriptor.urls {
            let Ok(url) = url.parse::<reqwest::Url>() else { continue };
            if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() {
                continue;
            }
            let host = authority(&url);
            let attempt = async {
                let http = self.client.transport.http_for(&url)?;
                let stall = self.client.transport.tuning.stall_timeout;
                let response =
                    super::http::send(&host, stall, self.with_range(http.get(url.clone()))).await?;
                match response.status() {
                    status if status.is_success() => Ok(response),
                    status => Err(Error::Status {
                        host: host.clone(),
                        status: status.as_u16(),
                        message: String::new(),
                    }),
                }
            };
            match attempt.await {
                Ok(response) => return Some(Ok(response)),
                Err(error) => last = Some(Err(error)),
            }
        }
        last
    }

    fn with_range(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self.offset {
            0 => request,
            offset => request.header(RANGE, format!("bytes={offset}-")),
        }
    }

    /// How much of a response is before the place where the stream broke off: ranges are optional.
    fn skipped(&self, response: &Response) -> Result<u64, Error> {
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok(self.offset);
        }
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let start =
            range.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
        match start == Some(self.offset) {
            true => Ok(0),
            false => Err(Error::Protocol {
                host: authority(response.url()),
                reason: "another range than was asked for".to_owned(),
            }),
        }
    }
}
