//! From a name and a platform to verified documents.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use solver::Digest;

use super::endpoint::{Endpoint, first_that_answers};
use super::http::{Call, failure, read_limited};
use super::{Client, Error};
use crate::oci::{
    Descriptor, Document, MANIFEST_LIMIT, Part, Platform, Reference, ResolvedImage, Search, media_type,
};

/// Documents that are known already, by digest; spares the requests for them.
pub trait DocumentCache: Send + Sync {
    /// The bytes of a manifest, index or config. What does not have the digest is not used.
    fn get(&self, digest: &Digest) -> Option<Vec<u8>>;
    /// Keeps verified bytes. A failure to do so is the cache's own matter.
    fn put(&self, digest: &Digest, media_type: &str, bytes: &[u8]);
}

/// Knows nothing and keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCache;

impl DocumentCache for NoCache {
    fn get(&self, _digest: &Digest) -> Option<Vec<u8>> {
        None
    }

    fn put(&self, _digest: &Digest, _media_type: &str, _bytes: &[u8]) {}
}

/// A manifest or index as a registry gave it.
struct Fetched {
    digest: Digest,
    bytes: Vec<u8>,
    content_type: Option<String>,
}

impl Client {
    /// Asks what a reference stands for now: digest, media type and size of its manifest or index.
    ///
    /// A reference with a digest is asked for too, so that its absence shows.
    ///
    /// # Errors
    /// [`Error::ImageNotFound`], or why the registry could not be asked.
    pub async fn head(&self, reference: &Reference) -> Result<Descriptor, Error> {
        Ok(self.head_among(self.transport.for_pull(reference.domain())?, reference).await?.0)
    }

    /// As [`Self::head`], from some endpoints; says which one answered.
    async fn head_among(
        &self,
        endpoints: Vec<Endpoint>,
        reference: &Reference,
    ) -> Result<(Descriptor, Arc<Endpoint>), Error> {
        first_that_answers(&self.transport, endpoints, |endpoint| async move {
            let tuning = self.transport.tuning.at(&endpoint);
            let found = tuning.retry(|| self.head_at(&endpoint, reference)).await?;
            Ok((found, endpoint))
        })
        .await
    }

    /// Looks up the image of `reference` for `platform`: its manifest and config, all verified.
    ///
    /// Where a mirror says what a tag stands for, but that cannot be had or used, the next mirror and at last the
    /// registry itself are asked what it stands for. Where none of them can be reached, what was wrong with the mirror's is told.
    ///
    /// # Errors
    /// [`Error::ImageNotFound`], or why a document could not be had or used.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        cache: &dyn DocumentCache,
    ) -> Result<ResolvedImage, Error> {
        if let Some(digest) = reference.digest() {
            return self.resolve_digest(reference, *digest, None, platform, cache).await;
        }
        let mut endpoints = self.transport.for_pull(reference.domain())?;
        let mut mirrors = None;
        loop {
            let (found, place) = match self.head_among(endpoints.clone(), reference).await {
                Err(error) if error.is_unreachable() => return Err(mirrors.unwrap_or(error)),
                other => other?,
            };
            let kind = Some(found.media_type);
            let error = match self.resolve_digest(reference, found.digest, kind, platform, cache).await {
                Err(error) if place.mirror_of.is_some() => error,
                other => return other,
            };
            tracing::warn!(mirror = place.host, %error, "a mirror's image cannot be used; asking elsewhere");
            let asked = endpoints.iter().position(|endpoint| endpoint.is_same(&place));
            endpoints.drain(..asked.map_or(endpoints.len(), |at| at + 1));
            if endpoints.is_empty() {
                return Err(error);
            }
            mirrors = Some(error);
        }
    }

    /// Looks up the image of a manifest or index, which was said to be of the type `sent_as`.
    async fn resolve_digest(
        &self,
        reference: &Reference,
        target: Digest,
        sent_as: Option<String>,
        platform: &Platform,
        cache: &dyn DocumentCache,
    ) -> Result<ResolvedImage, Error> {
        let mut search = Search::new(target, sent_as, None, platform);
        loop {
            let wanted = search.wanted();
            let known = cache.get(&wanted.digest).filter(|bytes| Digest::of(bytes) == wanted.digest);
            let (bytes, came_as) = match (known, wanted.part, wanted.descriptor()) {
                (Some(bytes), ..) => (bytes, None),
                (None, Part::Config, Some(config)) => {
                    (self.fetch_bytes(reference, &config, wanted.part.limit()).await?, None)
                }
                (None, ..) => {
                    let fetched = self.manifest(reference, &wanted.digest).await?;
                    (fetched.bytes, fetched.content_type)
                }
            };
            let kind = came_as.as_deref().or(wanted.media_type.as_deref());
            cache.put(&wanted.digest, kind.unwrap_or(wanted.part.name()), &bytes);
            let found = search
                .give(bytes, came_as.as_deref())
                .map_err(|source| Error::Document { reference: reference.to_string(), source })?;
            if let Some(image) = found {
                return Ok(image);
            }
        }
    }

    /// The manifest or index that a reference stands for now, in one request; `None` where there is none.
    ///
    /// # Errors
    /// Why it could not be had or used.
    pub async fn manifest_of(&self, reference: &Reference) -> Result<Option<Document>, Error> {
        let endpoints = self.transport.for_pull(reference.domain())?;
        let fetched = first_that_answers(&self.transport, endpoints, |endpoint| async move {
            let (identifier, digest) = (reference.identifier(), reference.digest());
            let fetch = || self.manifest_at(&endpoint, reference, &identifier, digest);
            self.transport.tuning.at(&endpoint).retry(fetch).await
        });
        let fetched = match fetched.await {
            Err(error) if error.is_not_found() => return Ok(None),
            fetched => fetched?,
        };
        let document = Document::parse(&fetched.bytes, fetched.content_type.as_deref())
            .map_err(|source| Error::Document { reference: reference.to_string(), source })?;
        Ok(Some(document))
    }

    /// The bytes of a manifest or index, verified, with the document that they are.
    ///
    /// # Errors
    /// [`Error::ImageNotFound`], or why it could not be had or used.
    pub async fn fetch_manifest(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<(Vec<u8>, Document), Error> {
        let fetched = self.manifest(reference, digest).await?;
        let document = Document::parse(&fetched.bytes, fetched.content_type.as_deref())
            .map_err(|source| Error::Document { reference: reference.to_string(), source })?;
        Ok((fetched.bytes, document))
    }

    /// A small blob as a whole, verified: an image config, an attestation.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above `limit` bytes, [`Error::BlobNotFound`], or why it could not be had.
    pub async fn fetch_bytes(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, Error> {
        if descriptor.size > limit {
            let host = reference.domain().to_owned();
            return Err(Error::TooLarge { host, what: "a document", limit });
        }
        loop {
            let mut stream = self.fetch_blob(reference, descriptor)?;
            match stream.read_to_end().await {
                Err(error) if stream.is_misled() => {
                    tracing::warn!(%error, "a mirror sent wrong bytes; asking elsewhere");
                }
                other => return other,
            }
        }
    }

    async fn head_at(&self, endpoint: &Arc<Endpoint>, reference: &Reference) -> Result<Descriptor, Error> {
        let response = self.ask_manifest(endpoint, reference, &reference.identifier(), Method::HEAD).await?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let digest: Option<Digest> = header("docker-content-digest").and_then(|text| text.parse().ok());
        // HEAD has no body; its length is only in the header.
        let size = header("content-length").and_then(|text| text.parse().ok());
        let kind = header(CONTENT_TYPE.as_str()).map(|text| text.split(';').next().unwrap_or(text).trim());
        if let (Some(digest), Some(size), Some(kind)) = (digest, size, kind)
            && reference.digest().is_none_or(|wanted| *wanted == digest)
        {
            return Ok(Descriptor::new(kind, digest, size));
        }
        let fetched =
            self.manifest_at(endpoint, reference, &reference.identifier(), reference.digest()).await?;
        let kind = fetched.content_type.unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
        Ok(Descriptor::new(kind, fetched.digest, fetched.bytes.len() as u64))
    }

    /// A manifest by its digest, from the first endpoint that has it.
    async fn manifest(&self, reference: &Reference, digest: &Digest) -> Result<Fetched, Error> {
        let endpoints = self.transport.for_pull(reference.domain())?;
        let identifier = digest.to_string();
        let identifier = identifier.as_str();
        first_that_answers(&self.transport, endpoints, |endpoint| async move {
            let fetch = || self.manifest_at(&endpoint, reference, identifier, Some(digest));
            self.transport.tuning.at(&endpoint).retry(fetch).await
        })
        .await
    }

    async fn manifest_at(
        &self,
        endpoint: &Arc<Endpoint>,
        reference: &Reference,
        identifier: &str,
        wanted: Option<&Digest>,
    ) -> Result<Fetched, Error> {
        let response = self.ask_manifest(endpoint, reference, identifier, Method::GET).await?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let stated: Option<Digest> = header("docker-content-digest").and_then(|text| text.parse().ok());
        let content_type = header(CONTENT_TYPE.as_str()).map(str::to_owned);
        let stall = self.transport.tuning.stall_timeout;
        let bytes = read_limited(&endpoint.host, response, MANIFEST_LIMIT, "a manifest", stall).await?;
        let actual = Digest::of(&bytes);
        if let Some(expected) = wanted.copied().or(stated).filter(|expected| *expected != actual) {
            return Err(Error::DigestMismatch { host: endpoint.host.clone(), expected, actual });
        }
        Ok(Fetched { digest: actual, bytes, content_type })
    }

    async fn ask_manifest(
        &self,
        endpoint: &Arc<Endpoint>,
        reference: &Reference,
        identifier: &str,
        method: Method,
    ) -> Result<reqwest::Response, Error> {
        let path = reference.path();
        let stall = self.transport.tuning.stall_timeout;
        let call = Call {
            method,
            url: endpoint.url(path, &format!("manifests/{identifier}"))?,
            scopes: &[endpoint.scope(path, "pull")],
            timeout: stall,
            prepare: &|request| request.header(ACCEPT, media_type::MANIFEST_ACCEPT),
        };
        let response = self.call(endpoint, call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let missing = || Error::ImageNotFound { reference: reference.to_string() };
        Err(failure(endpoint, path, response, stall, missing).await)
    }
}
