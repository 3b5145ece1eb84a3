//! Images of an OCI layout that a client offers over its session.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use cache::oci::{Reference, Search};
use cache::registry::DocumentCache as _;
use solver::op::Platform;
use solver::{Digest, ExecError, VertexContext};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::{Found, Home, ImageError, ImageSource, LayoutStore, chain_of, oci_platform};
use crate::session::{ARRIVAL, Session, SessionError};

/// A blob of a layout could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum LayoutError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("no session offers the content store `{0}`")]
    NoSession(String),
    #[error("cannot read `{digest}` of the OCI layout")]
    Read {
        digest: Digest,
        #[source]
        source: io::Error,
    },
    #[error("{what} `{digest}` of the OCI layout is larger than {limit} bytes")]
    TooLarge { what: &'static str, digest: Digest, limit: u64 },
    #[error("the OCI layout holds other bytes than `{0}`")]
    Damaged(Digest),
}

/// Where the reader of a blob leaves its error: who reads through others may not get to see it.
#[derive(Debug, Clone, Default)]
pub(super) struct Fault(Arc<Mutex<Option<LayoutError>>>);

impl Fault {
    pub(super) fn take(&self) -> Option<LayoutError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A blob on its way; what fails is left in the fault.
pub(super) struct Blob {
    digest: Digest,
    inner: Box<dyn AsyncRead + Send + Unpin>,
    fault: Fault,
}

impl AsyncRead for Blob {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Err(source) = ready!(Pin::new(&mut self.inner).poll_read(cx, buf)) else {
            return Poll::Ready(Ok(()));
        };
        let kind = source.kind();
        let error = LayoutError::Read { digest: self.digest, source };
        *self.fault.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        Poll::Ready(Err(kind.into()))
    }
}

impl ImageSource {
    /// Looks an image of a client's OCI layout up, once per build. It is named by the digest of its manifest or index.
    ///
    /// # Errors
    /// A reference without digest, a client that does not offer the layout, damaged documents.
    pub(crate) async fn resolve_layout(
        &self,
        reference: &str,
        platform: &Platform,
        layout: &LayoutStore,
        cx: &VertexContext,
    ) -> Result<Arc<Found>, ExecError> {
        let reference = Reference::parse(reference).map_err(|e| ExecError::failed(ImageError::from(e)))?;
        let Some(target) = reference.digest().copied() else {
            return Err(ExecError::failed(ImageError::NoDigest(reference.to_string())));
        };
        let key = (cx.build.clone(), Some(layout.clone()), reference.to_string(), platform.clone());
        if let Some(known) = self.lock().get(&key) {
            return Ok(known.clone());
        }
        let wanted_platform = oci_platform(platform);
        let mut search = Search::new(target, None, None, &wanted_platform);
        let documents = self.documents(&reference, None, cx);
        let image = loop {
            let wanted = search.wanted().clone();
            let bytes = match documents.get(&wanted.digest) {
                Some(bytes) => bytes,
                None => {
                    let limit = wanted.part.limit();
                    let read = self.store_document(layout, &wanted.digest, wanted.part.name(), limit, cx);
                    let bytes = tokio::select! {
                        r = read => r?,
                        () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
                    };
                    documents.put(&wanted.digest, wanted.part.name(), &bytes);
                    bytes
                }
            };
            let found = search.give(bytes, None).map_err(|e| ExecError::failed(ImageError::from(e)))?;
            if let Some(image) = found {
                break image;
            }
        };
        let layers = chain_of(image.layers().map(|(_, diff_id)| diff_id));
        let found = Arc::new(Found { reference, image, layers, home: Home::Layout(layout.clone()) });
        self.lock().insert(key, found.clone());
        Ok(found)
    }

    /// A document of a client's content store, verified.
    ///
    /// # Errors
    /// A client that does not offer the store, a document that is too large or damaged.
    pub(crate) async fn store_document(
        &self,
        layout: &LayoutStore,
        digest: &Digest,
        what: &'static str,
        limit: u64,
        cx: &VertexContext,
    ) -> Result<Vec<u8>, ExecError> {
        let (blob, fault) = self.layout_blob(layout, digest, cx).await?;
        let mut bytes = Vec::new();
        let read = blob.take(limit + 1).read_to_end(&mut bytes).await;
        if let Some(error) = fault.take() {
            return Err(ExecError::failed(error));
        }
        read.map_err(ExecError::failed)?;
        if bytes.len() as u64 > limit {
            return Err(ExecError::failed(LayoutError::TooLarge { what, digest: *digest, limit }));
        }
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(ExecError::failed(LayoutError::Damaged(*digest))),
        }
    }

    /// Starts to read a blob of a layout. It is not verified.
    pub(super) async fn layout_blob(
        &self,
        layout: &LayoutStore,
        digest: &Digest,
        cx: &VertexContext,
    ) -> Result<(Blob, Fault), ExecError> {
        let session = self.layout_session(layout, cx).await.map_err(ExecError::failed)?;
        let inner =
            session.store_blob(&layout.store, digest).map_err(|e| ExecError::failed(LayoutError::from(e)))?;
        let fault = Fault::default();
        let blob = Blob { digest: *digest, inner: Box::new(inner), fault: fault.clone() };
        Ok((blob, fault))
    }

    async fn layout_session(&self, layout: &LayoutStore, cx: &VertexContext) -> Result<Session, LayoutError> {
        if !layout.session.is_empty() {
            return Ok(self.sessions.get(&layout.session, ARRIVAL).await?);
        }
        let first = self.sessions.first(&cx.sessions.ids()).await;
        first.ok_or_else(|| LayoutError::NoSession(layout.store.clone()))
    }
}
