//! Pushing a result to registries.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use cache::oci::{Descriptor, Reference};
use cache::registry::{Client, PushSource, Transfer};
use cache::store::{Store, StoreError};
use futures_util::{StreamExt, TryStreamExt};
use solver::{Digest, ExecError, Status, VertexContext};
use tokio::io::AsyncRead;

use super::layers::{LayerBlob, LayerBlobs};
use super::parcel::Parcel;
use super::{AtRegistries, Exporter};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::progress::Step;

/// How many blobs are pushed at a time.
const AT_ONCE: usize = 4;

/// A blob of the store, opened anew for each try.
#[derive(Debug)]
pub(in crate::daemon) struct StoredBlob {
    /// Where it is.
    pub store: Store,
    /// Which.
    pub digest: Digest,
}

/// A layer's blob, which comes in when somebody reads it.
#[derive(Debug)]
struct ComingBlob {
    blobs: LayerBlobs,
    layer: LayerBlob,
    cx: VertexContext,
}

/// Where layers are that are pushed.
pub(super) struct Places<'a> {
    /// Brings in what is not here.
    pub(super) blobs: &'a LayerBlobs,
    /// Who has the others.
    pub(super) others: &'a AtRegistries,
}

impl Places<'_> {
    fn source(&self, layer: &LayerBlob, cx: &VertexContext) -> Arc<dyn PushSource> {
        Arc::new(ComingBlob { blobs: self.blobs.clone(), layer: layer.clone(), cx: cx.clone() })
    }

    /// A repository at the registry of `name` that may have a layer's blob.
    fn beside(&self, layer: &LayerBlob, name: &Reference) -> Result<Option<String>, ExecError> {
        let origin = self.blobs.origin(layer)?;
        let pulled = origin.filter(|from| from.domain() == name.domain() && from.path() != name.path());
        Ok(pulled.as_ref().or_else(|| self.others.beside(name)).map(|from| from.path().to_owned()))
    }
}

impl Exporter {
    /// Pushes an image under each of the names, or into their repositories under its digest.
    pub(super) async fn push_names(
        &self,
        names: &[Reference],
        by_digest: bool,
        parcel: &Parcel,
        from: &Places<'_>,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let progress = step.progress();
        let started = SystemTime::now();
        let client = self.images.client(cx).with_progress(Arc::new(move |t: Transfer| {
            let completed = (t.current == t.total).then(SystemTime::now);
            progress.status(Status {
                id: format!("pushing {}", t.digest),
                current: t.current,
                total: t.total,
                started,
                completed,
            });
        }));
        for name in names {
            step.part("pushing layers", self.push_blobs(&client, name, parcel, from, cx)).await?;
            let repository = Reference::parse(&name.repository()).map_err(ExecError::failed)?;
            let pinned = repository.with_digest(parcel.target.digest);
            let to = if by_digest { &pinned } else { name };
            let manifests = self.push_manifests(&client, &repository, to, parcel);
            let shown = if by_digest { to.to_string() } else { format!("{to}@{}", parcel.target.digest) };
            step.part(&format!("pushing manifest for {shown}"), manifests).await?;
        }
        Ok(())
    }

    async fn push_blobs(
        &self,
        client: &Client,
        name: &Reference,
        parcel: &Parcel,
        from: &Places<'_>,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let one = |d: Descriptor| async move {
            let (source, beside) = match parcel.layers.get(&d.digest) {
                Some(layer) => (from.source(layer, cx), from.beside(layer, name)?),
                None => (Arc::new(self.stored_blob(d.digest)) as Arc<dyn PushSource>, None),
            };
            let Err(error) = client.push_blob(name, &d, beside.as_deref(), source).await else {
                return Ok(());
            };
            // What was refused may be a damaged blob: then it goes, and the next attempt makes or fetches it again.
            let store = self.chains.store.clone();
            match blocking(move || store.blobs().check(&d.digest)).await {
                Err(damaged @ StoreError::BlobDamaged { .. }) => Err(from_store(damaged)),
                _ => Err(ExecError::failed(error)),
            }
        };
        futures_util::stream::iter(parcel.blobs.iter().cloned().map(one))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    fn stored_blob(&self, digest: Digest) -> StoredBlob {
        StoredBlob { store: self.chains.store.clone(), digest }
    }

    async fn push_manifests(
        &self,
        client: &Client,
        repository: &Reference,
        to: &Reference,
        parcel: &Parcel,
    ) -> Result<(), ExecError> {
        for manifest in &parcel.manifests {
            let by_digest = repository.with_digest(manifest.digest);
            self.push_manifest(client, &by_digest, manifest).await?;
        }
        self.push_manifest(client, to, &parcel.target).await
    }

    async fn push_manifest(&self, client: &Client, to: &Reference, d: &Descriptor) -> Result<(), ExecError> {
        let bytes = self.chains.store.blobs().read(&d.digest, d.size).map_err(from_store)?;
        client.push_manifest(to, &d.media_type, &bytes).await.map(drop).map_err(ExecError::failed)
    }
}

#[async_trait::async_trait]
impl PushSource for ComingBlob {
    async fn open(&self) -> io::Result<Pin<Box<dyn AsyncRead + Send>>> {
        let Self { blobs, layer, cx } = self;
        blobs.bring_here(layer, cx).await.map_err(io::Error::other)?;
        StoredBlob { store: blobs.store.clone(), digest: layer.descriptor.digest }.open().await
    }
}

#[async_trait::async_trait]
impl PushSource for StoredBlob {
    async fn open(&self) -> io::Result<Pin<Box<dyn AsyncRead + Send>>> {
        let file = self.store.blobs().open(&self.digest).map_err(io::Error::other)?;
        Ok(Box::pin(tokio::fs::File::from_std(file)))
    }
}
