//! Blobs as verified streams that survive broken connections and bad mirrors.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
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
/// How often the connection to a mirror may break before the next place is asked for the rest.
const MIRROR_BREAKS: u32 = 2;

/// The bytes of a blob. It ends well only if digest and size are right.
pub struct BlobStream {
    client: Client,
    reference: Reference,
    descriptor: Descriptor,
    hash: Sha256,
    offset: u64,
    /// Where it is asked for, the current place first.
    places: VecDeque<Endpoint>,
    /// The mirror that sent the first bytes of it, if one did.
    mirror: Option<Endpoint>,
    /// Why it failed is that a mirror sent wrong bytes, and another place may have the right ones.
    misled: bool,
    response: Option<Response>,
    /// Bytes of the response that came before it broke, and come again.
    skip: u64,
    /// Attempts since the last byte came.
    attempts: u32,
    /// Connections broken so far.
    breaks: u32,
    done: bool,
}

/// Why a reader ended early.
#[derive(Clone, Debug, Default)]
pub struct Fault(Arc<Mutex<Option<(Error, bool)>>>);

impl Fault {
    /// The error, if there was one, and whether the blob may be had right when it is fetched again from its start.
    pub fn take(&self) -> Option<(Error, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptor, offset, .. } = self;
        f.debug_struct("BlobStream").field("digest", &descriptor.digest).field("offset", offset).finish()
    }
}

/// What who writes a repository asks a token for.
pub(super) const PUSH: &str = "pull,push";

impl Client {
    /// Whether the registry itself (no mirror) has a blob in a repository that is going to be written.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub async fn blob_exists(&self, reference: &Reference, digest: &Digest) -> Result<bool, Error> {
        self.has_blob(reference, digest, PUSH).await
    }

    /// Whether the registry itself (no mirror) has a blob in a repository that need only be readable.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub async fn blob_is_readable(&self, reference: &Reference, digest: &Digest) -> Result<bool, Error> {
        self.has_blob(reference, digest, "pull").await
    }

    async fn has_blob(&self, reference: &Reference, digest: &Digest, rights: &str) -> Result<bool, Error> {
        let endpoints = self.transport.for_push(reference.domain())?;
        first_that_answers(&self.transport, endpoints, |endpoint| async move {
            let ask = || self.blob_exists_at(&endpoint, reference.path(), digest, rights);
            self.transport.tuning.retry(ask).await
        })
        .await
    }

    pub(super) async fn blob_exists_at(
        &self,
        endpoint: &Endpoint,
        path: &str,
        digest: &Digest,
        rights: &str,
    ) -> Result<bool, Error> {
        let stall = self.transport.tuning.stall_timeout;
        let call = Call {
            method: Method::HEAD,
            url: endpoint.url(path, &format!("blobs/{digest}"))?,
            scopes: &[endpoint.scope(path, rights)],
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

    /// The descriptor of a blob of which only the digest is known: the first place that has it tells its size.
    ///
    /// # Errors
    /// A blob that is nowhere, a registry that cannot be asked or does not tell the size.
    pub async fn describe_blob(&self, reference: &Reference, digest: &Digest) -> Result<Descriptor, Error> {
        let places = self.transport.for_blob(reference.domain(), digest)?;
        first_that_answers(&self.transport, places, |endpoint| async move {
            let size = || self.blob_size_at(&endpoint, reference.path(), digest);
            let size = self.transport.tuning.at(&endpoint).retry(size).await?;
            Ok(Descriptor::new(media_type::OCTET_STREAM, *digest, size))
        })
        .await
    }

    async fn blob_size_at(&self, endpoint: &Endpoint, path: &str, digest: &Digest) -> Result<u64, Error> {
        let stall = self.transport.tuning.stall_timeout;
        let call = Call {
            method: Method::HEAD,
            url: endpoint.url(path, &format!("blobs/{digest}"))?,
            scopes: &[endpoint.scope(path, "pull")],
            timeout: stall,
            prepare: &|request| request,
        };
        let response = self.call(endpoint, call).await?;
        if !response.status().is_success() {
            let missing = || Error::BlobNotFound { digest: *digest, repository: path.to_owned() };
            return Err(failure(endpoint, path, response, stall, missing).await);
        }
        // HEAD has no body; its length is only in the header.
        let length =
            response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        length.ok_or_else(|| Error::Protocol {
            host: endpoint.host.clone(),
            reason: "a blob without a size".to_owned(),
        })
    }

    /// Starts to fetch a blob; the first request is made when the stream is first read.
    ///
    /// Mirrors are asked before the registry; what one does not have, or breaks off, comes from the next.
    ///
    /// # Errors
    /// The registry's configuration cannot be used.
    pub fn fetch_blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<BlobStream, Error> {
        let places = self.transport.for_blob(reference.domain(), &descriptor.digest)?;
        Ok(BlobStream {
            places: places.into(),
            mirror: None,
            misled: false,
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
                    if self.at_mirror() && !self.is_wrong(&error) && !self.is_worth_asking_again(&error) {
                        self.pass_on(&error);
                        continue;
                    }
                    let wait = self.client.transport.tuning.wait(self.attempts, &error);
                    let Some(wait) = wait.filter(|_| self.breaks <= MAX_BREAKS) else {
                        self.done = true;
                        self.blame(&error);
                        return Err(error);
                    };
                    tracing::debug!(digest = %self.descriptor.digest, offset = self.offset, %error, "blob is resumed");
                    tokio::time::sleep(wait).await;
                }
            }
        }
        Ok(None)
    }

    pub(super) async fn read_to_end(&mut self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next_chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Whether a blob that failed may be had right when it is fetched again from its start: a mirror sent wrong bytes,
    /// and is not asked for it again.
    pub fn is_misled(&self) -> bool {
        self.misled
    }

    /// Whether bytes came that are not the blob's, so that going on elsewhere does not help.
    fn is_wrong(&self, error: &Error) -> bool {
        matches!(error, Error::DigestMismatch { .. }) || self.offset > self.descriptor.size
    }

    /// Whether a mirror may get over its failure.
    fn is_worth_asking_again(&self, error: &Error) -> bool {
        error.is_transient() && !self.breaks.is_multiple_of(MIRROR_BREAKS)
    }

    /// After wrong bytes: the first mirror that sent some is not trusted with this blob any more. If it was another one,
    /// that shows the next time.
    fn blame(&mut self, error: &Error) {
        if let Some(mirror) = self.mirror.as_ref().filter(|_| self.is_wrong(error)) {
            self.client.transport.distrust(mirror, &self.descriptor.digest);
            self.misled = true;
        }
    }

    fn at_mirror(&self) -> bool {
        self.places.front().is_some_and(|place| place.mirror_of.is_some())
    }

    /// Goes on to the next place; behind a mirror there always is one.
    fn pass_on(&mut self, error: &Error) {
        tracing::debug!(digest = %self.descriptor.digest, %error, "trying the next endpoint");
        self.places.pop_front();
        self.attempts = 0;
    }

    /// The same as a stream.
    pub fn into_stream(self) -> Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>> {
        Box::pin(try_unfold(self, |mut blob| async move {
            Ok(blob.next_chunk().await?.map(|chunk| (chunk, blob)))
        }))
    }

    /// The same as a reader, and where it leaves its [`Error`]: who reads through others may not get to see it.
    pub fn into_reader(self) -> (Pin<Box<dyn tokio::io::AsyncBufRead + Send>>, Fault) {
        let fault = Fault::default();
        let stream = try_unfold((self, fault.clone()), |(mut blob, fault)| async move {
            let error = match blob.next_chunk().await {
                Ok(chunk) => return Ok::<_, io::Error>(chunk.map(|chunk| (chunk, (blob, fault)))),
                Err(error) => error,
            };
            let text = error.to_string();
            *fault.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((error, blob.misled));
            Err(io::Error::other(text))
        });
        (Box::pin(StreamReader::new(Box::pin(stream))), fault)
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
            if self.mirror.is_none() {
                self.mirror = self.places.front().filter(|place| place.mirror_of.is_some()).cloned();
            }
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
    async fn open(&mut self) -> Result<Response, Error> {
        let error = loop {
            let Some(place) = self.places.front().cloned() else { break self.missing() };
            let error = match self.open_at(&place).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if !self.client.transport.may_pass_on(&place, &error) || self.places.len() == 1 {
                break error;
            }
            self.pass_on(&error);
        };
        if error.is_not_found() && media_type::is_foreign_layer(&self.descriptor.media_type) {
            return self.open_foreign().await.unwrap_or(Err(error));
        }
        Err(error)
    }

    fn missing(&self) -> Error {
        Error::BlobNotFound { digest: self.descriptor.digest, repository: self.reference.repository() }
    }

    async fn open_at(&self, endpoint: &Endpoint) -> Result<Response, Error> {
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
        let response = self.client.call(endpoint, call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(failure(endpoint, path, response, stall, || self.missing()).await)
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
