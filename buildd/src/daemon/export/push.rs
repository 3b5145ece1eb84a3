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

/// Where layers are that are pushed.
pub(super) struct Places<'a> {
    /// Brings in what is not here.
    pub(super) blobs: &'a LayerBlobs,
    /// Who has the others.
    pub(super) others: &'a AtRegistries,
}

impl Places<'_> {
    /// How a layer is to be sent, if it is; then it is here.
    async fn sending(
        &self,
        client: &Client,
        name: &Reference,
        layer: &LayerBlob,
        cx: &VertexContext,
    ) -> Result<Sending, ExecError> {
        let origin = self.blobs.origin(layer, cx)?;
        let digest = &layer.descriptor.digest;
        if !layer.elsewhere {
            let from = self.others.beside_with(client, name, digest, origin.as_ref()).await;
            return Ok(Sending::Mounting(from.map(|from| from.path().to_owned())));
        }
        let has = self.others.has_or_mounts(client, name, digest, origin.as_ref()).await;
        if has.map_err(ExecError::failed)? {
            return Ok(Sending::Nothing);
        }
        // Before anything is sent: what comes slowly must not look like a registry that does not take it.
        self.blobs.bring_here(layer, cx).await.map_err(|error| match error {
            ExecError::Changed { .. } => ExecError::failed(LostLayer(*digest)),
            error => error,
        })?;
        Ok(Sending::Mounting(None))
    }
}

/// What is to be done for a layer that is pushed.
enum Sending {
    /// The registry has it.
    Nothing,
    /// It is sent, if the registry has it not; maybe it can be mounted from this repository.
    Mounting(Option<String>),
}

/// A registry had a layer when it was asked, and does not have it any more.
#[derive(Debug, thiserror::Error)]
#[error("layer `{0}` is not at the registry any more, and nowhere else: build again")]
struct LostLayer(Digest);

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
            let sending = match parcel.layers.get(&d.digest) {
                Some(layer) => from.sending(client, name, layer, cx).await?,
                None => Sending::Mounting(None),
            };
            let Sending::Mounting(beside) = sending else { return Ok(()) };
            let source = Arc::new(StoredBlob { store: self.chains.store.clone(), digest: d.digest });
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
impl PushSource for StoredBlob {
    async fn open(&self) -> io::Result<Pin<Box<dyn AsyncRead + Send>>> {
        let file = self.store.blobs().open(&self.digest).map_err(io::Error::other)?;
        Ok(Box::pin(tokio::fs::File::from_std(file)))
    }
}
