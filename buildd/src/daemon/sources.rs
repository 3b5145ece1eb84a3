//! What graphs begin with: images, sessions' directories, git repositories, URLs.

mod blob;
mod file;
pub(super) mod git;
pub(super) mod http;
pub(super) mod image;
mod local;

use std::sync::Arc;

use async_trait::async_trait;
use solver::op::{Platform, SourceOp, attr};
use solver::{ExecError, Output, Source, SourceAnswer, VertexContext, redacted};

use blob::BlobSource;
use git::GitSource;
use http::HttpSource;
use image::blob::{LAYOUT_BLOB, REGISTRY_BLOB};
use image::{Found, ImageSource};
use local::LocalSource;

use super::chains::Chains;
use super::leases::Leases;
use super::locals::Locals;
use super::provenance::Pin;
use crate::session::SessionManager;

/// All kinds of sources, by the scheme of their identifiers.
#[derive(Debug)]
pub(super) struct Sources {
    /// Images of registries and of the image store.
    pub images: Arc<ImageSource>,
    local: LocalSource,
    http: HttpSource,
    git: GitSource,
    blobs: BlobSource,
}

/// What a source is.
#[derive(Debug)]
pub(super) enum About {
    /// An image, of a registry, of the image store or of a client's layout.
    Image(Arc<Found>),
    /// A file behind a URL.
    File(http::About),
    /// A commit.
    Commit(git::About),
}

/// A scheme that nothing serves.
#[derive(Debug, thiserror::Error)]
#[error("no source handles `{0}`")]
struct UnknownScheme(String);

impl Sources {
    /// Sources that keep what they fetch in the store behind `chains`.
    pub(super) fn new(
        images: Arc<ImageSource>,
        chains: &Chains,
        sessions: Arc<SessionManager>,
        locals: Arc<Locals>,
        leases: &Arc<Leases>,
    ) -> Self {
        let maker = super::snapshot::Maker { chains: chains.clone(), leases: leases.clone() };
        Self {
            images: images.clone(),
            local: LocalSource { locals, maker: maker.clone() },
            http: HttpSource::new(maker.clone(), sessions.clone()),
            git: GitSource::new(maker.clone(), sessions, images.clone()),
            blobs: BlobSource { images, maker },
        }
    }
}

/// A source is to be verified in a way that there is not. To fetch it all the same would be worse than not to.
#[derive(Debug, thiserror::Error)]
#[error("`{attr}` of `{source_name}`: such a signature cannot be verified")]
struct Unverifiable {
    attr: String,
    source_name: String,
}

/// Refuses what asks for a signature that sources of its kind do not have.
fn verifiable(op: &SourceOp) -> Result<(), ExecError> {
    let known: &[&str] = match op.scheme_and_ref().0 {
        "git" => &git::SIGNATURE,
        "http" | "https" => &http::SIGNATURE,
        _ => &[],
    };
    let asks = |name: &&String| attr::SIGNATURES.iter().any(|prefix| name.starts_with(prefix));
    match op.attrs.keys().filter(asks).find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(attr) => Err(ExecError::failed(Unverifiable {
            attr: attr.clone(),
            source_name: redacted(&op.identifier).into_owned(),
        })),
    }
}

impl Sources {
    /// What a source is in a build that has evaluated it; `None` for what cannot be told.
    ///
    /// # Errors
    /// A source that has gone meanwhile; cancellation.
    pub(super) async fn pin(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        cx: &VertexContext,
    ) -> Result<Option<Pin>, ExecError> {
        let (scheme, reference) = op.scheme_and_ref();
        match scheme {
            "docker-image" | "oci-layout" => self.images.pin(op, platform, cx).await.map(Some),
            "local" => Ok(Some(Pin::Local(reference.to_owned()))),
            "http" | "https" => self.http.told(op, cx).await.map(Some),
            "git" => self.git.told(op, cx).await.map(Some),
            REGISTRY_BLOB | LAYOUT_BLOB => self.blobs.told(op).map(Some),
            _ => Ok(None),
        }
    }

    /// What BuildKit's own caches know a source by; nothing for what only its content tells.
    ///
    /// # Errors
    /// A source that cannot be had; cancellation.
    pub(super) async fn buildkit_keys(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        cx: &VertexContext,
    ) -> Result<Vec<String>, ExecError> {
        match op.scheme_and_ref().0 {
            "docker-image" | "oci-layout" => self.images.buildkit_keys(op, platform, cx).await,
            "http" | "https" => self.http.buildkit_keys(op, cx).await,
            "git" => self.git.buildkit_keys(op, cx).await,
            REGISTRY_BLOB | LAYOUT_BLOB => BlobSource::buildkit_key(op).map(|key| vec![key]),
            _ => Ok(Vec::new()),
        }
    }

    /// When a source was made, in seconds since 1970; `None` for what has no time.
    ///
    /// # Errors
    /// A source that cannot be had; cancellation.
    pub(super) async fn time(&self, op: &SourceOp, cx: &VertexContext) -> Result<Option<i64>, ExecError> {
        match op.scheme_and_ref().0 {
            "http" | "https" => self.http.time(op, cx).await,
            "git" => self.git.time(op, cx).await.map(Some),
            _ => Ok(None),
        }
    }

    /// What a source is, without bringing in more than it takes to tell; `None` for what only the client has. A commit comes
    /// with its objects if they are wanted.
    ///
    /// # Errors
    /// A source that cannot be had; cancellation.
    pub(super) async fn about(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        with_objects: bool,
        cx: &VertexContext,
    ) -> Result<Option<About>, ExecError> {
        verifiable(op)?;
        match op.scheme_and_ref().0 {
            "docker-image" | "oci-layout" => {
                self.images.of_op(op, platform, cx).await.map(|found| Some(About::Image(found)))
            }
            "http" | "https" => self.http.about(op, cx).await.map(|about| Some(About::File(about))),
            "git" => self.git.about(op, with_objects, cx).await.map(|about| Some(About::Commit(about))),
            _ => Ok(None),
        }
    }

    /// Forgets what was looked up for a build.
    pub(super) fn forget(&self, build: &str) {
        self.http.forget(build);
        self.git.forget(build);
    }
}

#[async_trait]
impl Source for Sources {
    async fn identify(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        cx: &VertexContext,
    ) -> Result<SourceAnswer, ExecError> {
        verifiable(op)?;
        match op.scheme_and_ref().0 {
            "docker-image" | "oci-layout" => self.images.identify(op, platform, cx).await,
            "local" => self.local.identify(op, cx).await,
            "http" | "https" => self.http.identify(op, cx).await,
            "git" => self.git.identify(op, cx).await,
            REGISTRY_BLOB | LAYOUT_BLOB => self.blobs.identify(op),
            _ => Err(ExecError::failed(UnknownScheme(op.identifier.clone()))),
        }
    }

    async fn fetch(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        answer: &SourceAnswer,
        cx: &VertexContext,
    ) -> Result<Output, ExecError> {
        match op.scheme_and_ref().0 {
            "docker-image" | "oci-layout" => self.images.fetch(op, platform, cx).await,
            "local" => self.local.fetch(answer, cx).await,
            "http" | "https" => self.http.fetch(op, cx).await,
            "git" => self.git.fetch(op, cx).await,
            REGISTRY_BLOB | LAYOUT_BLOB => self.blobs.fetch(op, cx).await,
            _ => Err(ExecError::failed(UnknownScheme(op.identifier.clone()))),
        }
    }
}
