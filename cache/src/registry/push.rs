//! Blobs and manifests to a registry.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use solver::Digest;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::endpoint::{Endpoint, authority, first_that_answers};
use super::http::{Call, failure};
use super::pull::PUSH;
use super::{Client, Direction, Error, ProgressFn, Transfer};
use crate::oci::{Descriptor, Reference};

/// Bytes read from a source at a time.
const CHUNK: usize = 256 << 10;

/// Where the bytes of a blob that is pushed come from. May be opened again when a push is retried.
#[async_trait]
pub trait PushSource: Send + Sync + fmt::Debug {
    /// Opens the blob at its start.
    ///
    /// # Errors
    /// It cannot be read.
    async fn open(&self) -> io::Result<Pin<Box<dyn AsyncRead + Send>>>;
}

#[async_trait]
impl PushSource for PathBuf {
    async fn open(&self) -> io::Result<Pin<Box<dyn AsyncRead + Send>>> {
        Ok(Box::pin(tokio::fs::File::open(self).await?))
    }
}

#[async_trait]
impl PushSource for Bytes {
    async fn open(&self) -> io::Result<Pin<Box<dyn AsyncRead + Send>>> {
        Ok(Box::pin(io::Cursor::new(self.clone())))
    }
}

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there already.
    Existed,
    /// The registry linked it from another repository.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

impl Client {
    /// Makes sure that a blob is in the repository of `target`; asks for it, mounts it, or sends it.
    ///
    /// `mount_from` is a repository path on the same registry that has the blob, `library/busybox`.
    ///
    /// # Errors
    /// Why it could not be pushed. [`Error::Source`] when it could not be read.
    pub async fn push_blob(
        &self,
        target: &Reference,
        descriptor: &Descriptor,
        mount_from: Option<&str>,
        source: Arc<dyn PushSource>,
    ) -> Result<Pushed, Error> {
        let endpoints = self.transport.for_push(target.domain())?;
        let source = &source;
        first_that_answers(&self.transport, endpoints, |endpoint| async move {
            let push = || self.push_blob_to(&endpoint, target.path(), descriptor, mount_from, source);
            self.transport.tuning.retry(push).await
        })
        .await
    }

    /// Links a blob from another repository of the same registry; false when the registry does not.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub async fn mount_blob(&self, target: &Reference, digest: &Digest, from: &str) -> Result<bool, Error> {
        let endpoints = self.transport.for_push(target.domain())?;
        first_that_answers(&self.transport, endpoints, |endpoint| async move {
            let mount = || self.start_upload(&endpoint, target.path(), Some((digest, from)));
            Ok(matches!(self.transport.tuning.retry(mount).await?, Upload::Mounted))
        })
        .await
    }

    /// Puts a manifest or index under the tag or digest of `target`, `latest` if it has neither.
    ///
    /// # Errors
    /// Why it could not be pushed; a blob that it needs may be missing.
    pub async fn push_manifest(
        &self,
        target: &Reference,
        media_type: &str,
        manifest: &[u8],
    ) -> Result<Digest, Error> {
        let digest = Digest::of(manifest);
        if let Some(expected) = target.digest().filter(|expected| **expected != digest) {
            let host = target.domain().to_owned();
            return Err(Error::DigestMismatch { host, expected: *expected, actual: digest });
        }
        let body = Bytes::copy_from_slice(manifest);
        let endpoints = self.transport.for_push(target.domain())?;
        let body = &body;
        first_that_answers(&self.transport, endpoints, |endpoint| async move {
            let put = || self.put_manifest(&endpoint, target, media_type, body, &digest);
            self.transport.tuning.retry(put).await
        })
        .await?;
        Ok(digest)
    }

    async fn put_manifest(
        &self,
        endpoint: &Endpoint,
        target: &Reference,
        media_type: &str,
        body: &Bytes,
        digest: &Digest,
    ) -> Result<(), Error> {
        let path = target.path();
        let call = Call {
            method: Method::PUT,
            url: endpoint.url(path, &format!("manifests/{}", target.identifier()))?,
            scopes: &[endpoint.scope(path, PUSH)],
            timeout: self.transport.tuning.stall_timeout * 10,
            prepare: &|request| request.header(CONTENT_TYPE, media_type).body(body.clone()),
        };
        let response = self.call(endpoint, call).await?;
        if !response.status().is_success() {
            return Err(self.refused(endpoint, path, response).await);
        }
        let stored = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match stored.and_then(|text| text.parse::<Digest>().ok()) {
            Some(actual) if actual != *digest => {
                Err(Error::DigestMismatch { host: endpoint.host.clone(), expected: *digest, actual })
            }
            _ => Ok(()),
        }
    }

    async fn push_blob_to(
        &self,
        endpoint: &Endpoint,
        path: &str,
        descriptor: &Descriptor,
        mount_from: Option<&str>,
        source: &Arc<dyn PushSource>,
    ) -> Result<Pushed, Error> {
        if self.blob_exists_at(endpoint, path, &descriptor.digest, PUSH).await? {
            self.report(descriptor, descriptor.size);
            return Ok(Pushed::Existed);
        }
        let mount = mount_from.map(|from| (&descriptor.digest, from));
        match self.start_upload(endpoint, path, mount).await? {
            Upload::Mounted => {
                self.report(descriptor, descriptor.size);
                Ok(Pushed::Mounted)
            }
            Upload::Started(location) => {
                self.upload(endpoint, path, location, descriptor, source).await?;
                Ok(Pushed::Uploaded)
            }
        }
    }

    /// Asks for a place to upload to, or for a mount.
    async fn start_upload(
        &self,
        endpoint: &Endpoint,
        path: &str,
        mount: Option<(&Digest, &str)>,
    ) -> Result<Upload, Error> {
        let mut url = endpoint.url(path, "blobs/uploads/")?;
        let mut scopes = vec![endpoint.scope(path, PUSH)];
        if let Some((digest, from)) = mount {
            url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
            scopes.push(endpoint.scope(from, "pull"));
        }
        let base = url.clone();
        let call = Call {
            method: Method::POST,
            url,
            scopes: &scopes,
            timeout: self.transport.tuning.stall_timeout,
            prepare: &|request| request.header(CONTENT_LENGTH, 0),
        };
        let response = match self.call(endpoint, call).await {
            // Not being allowed to read the other repository only means that there is no short cut.
            Err(Error::Unauthorized { .. } | Error::Denied { .. }) if mount.is_some() => {
                return Box::pin(self.start_upload(endpoint, path, None)).await;
            }
            other => other?,
        };
        match response.status() {
            StatusCode::CREATED if mount.is_some() => Ok(Upload::Mounted),
            StatusCode::ACCEPTED => location(&base, &response).map(Upload::Started),
            _ if mount.is_some() && response.status().is_client_error() => {
                Box::pin(self.start_upload(endpoint, path, None)).await
            }
            _ => Err(self.refused(endpoint, path, response).await),
        }
    }

    /// Sends the bytes in one request.
    async fn upload(
        &self,
        endpoint: &Endpoint,
        path: &str,
        mut location: Url,
        descriptor: &Descriptor,
        source: &Arc<dyn PushSource>,
    ) -> Result<(), Error> {
        location.query_pairs_mut().append_pair("digest", &descriptor.digest.to_string());
        let sent = Arc::new(AtomicU64::new(0));
        let failed: Arc<Mutex<Option<io::Error>>> = Arc::default();
        let call = Call {
            method: Method::PUT,
            url: location,
            scopes: &[endpoint.scope(path, PUSH)],
            // The watch below is what ends it: a large blob takes any time.
            timeout: std::time::Duration::MAX,
            prepare: &|request| {
                sent.store(0, Ordering::Relaxed);
                let body = Body {
                    source: Arc::clone(source),
                    descriptor: descriptor.clone(),
                    sent: Arc::clone(&sent),
                    failed: Arc::clone(&failed),
                    progress: self.progress.clone(),
                };
                request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, descriptor.size)
                    .body(reqwest::Body::wrap_stream(body.stream()))
            },
        };
        let result = tokio::select! {
            result = self.call(endpoint, call) => result,
            error = self.watch(endpoint, &sent, descriptor.size) => Err(error),
        };
        if let Some(source) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Error::Source { digest: descriptor.digest, source });
        }
        let response = result?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.refused(endpoint, path, response).await),
        }
    }

    /// Ends when nothing was sent for too long; what is sent completely may take longer to be stored.
    async fn watch(&self, endpoint: &Endpoint, sent: &AtomicU64, size: u64) -> Error {
        let stall = self.transport.tuning.stall_timeout;
        let (mut last, mut silent) = (0, 0);
        loop {
            tokio::time::sleep(stall).await;
            let now = sent.load(Ordering::Relaxed);
            silent = if now == last { silent + 1 } else { 0 };
            last = now;
            if silent >= if now == size { 10 } else { 1 } {
                return Error::Stalled { host: endpoint.host.clone(), limit: stall * silent };
            }
        }
    }

    fn report(&self, descriptor: &Descriptor, current: u64) {
        report(self.progress.as_ref(), descriptor, current);
    }

    async fn refused(&self, endpoint: &Endpoint, path: &str, response: Response) -> Error {
        let host = endpoint.host.clone();
        let missing =
            || Error::Status { host, status: 404, message: format!("there is no repository `{path}`") };
        failure(endpoint, path, response, self.transport.tuning.stall_timeout, missing).await
    }
}

/// What a registry answers to the wish to upload.
enum Upload {
    Mounted,
    Started(Url),
}

/// Where to upload to. Another host is fine, it gets no credentials; leaving HTTPS is not.
fn location(base: &Url, response: &Response) -> Result<Url, Error> {
    let fail = |reason| Error::Redirect { host: authority(base), reason };
    let text = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let url = base.join(text.ok_or_else(|| fail("it does not say where to upload"))?);
    let url = url.map_err(|_| fail("the place to upload to is no URL"))?;
    match (base.scheme(), url.scheme()) {
        ("http", "http") | (_, "https") => Ok(url),
        _ => Err(fail("the upload would leave HTTPS")),
    }
}

/// The body of an upload.
struct Body {
    source: Arc<dyn PushSource>,
    descriptor: Descriptor,
    sent: Arc<AtomicU64>,
    failed: Arc<Mutex<Option<io::Error>>>,
    progress: Option<ProgressFn>,
}

impl Body {
    /// Reads the source from its start; counts what is taken and keeps the error that ends it.
    fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let source = Arc::clone(&self.source);
        let open =
            async move { source.open().await.map(|reader| ReaderStream::with_capacity(reader, CHUNK)) };
        futures_util::stream::once(open).try_flatten().map(move |chunk| match chunk {
            Ok(chunk) => {
                let length = chunk.len() as u64;
                let current = self.sent.fetch_add(length, Ordering::Relaxed) + length;
                report(self.progress.as_ref(), &self.descriptor, current);
                Ok(chunk)
            }
            Err(error) => {
                let kind = error.kind();
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(kind.into())
            }
        })
    }
}

fn report(progress: Option<&ProgressFn>, descriptor: &Descriptor, current: u64) {
    if let Some(progress) = progress {
        let Descriptor { digest, size, .. } = descriptor;
        progress(Transfer { digest: *digest, direction: Direction::Push, current, total: *size });
    }
}
