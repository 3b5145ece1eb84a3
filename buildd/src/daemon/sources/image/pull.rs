//! Pulling: layers downloaded and unpacked at the same time, several at once.

use std::sync::Arc;
use std::time::SystemTime;

use cache::oci::{Descriptor, Reference};
use cache::registry::{BlobStream, Client, Transfer};
use cache::store::{ImageRecord, Lease};
use futures_util::{StreamExt, TryStreamExt};
use solver::{Digest, ExecError, LayerId, Progress, Status, VertexContext};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use super::place::{Arrived, Placing};
use super::{Found, Home, ImageError, ImageSource};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::{Chains, from_store};

/// How many layers of an image are downloaded and unpacked at a time.
const AT_ONCE: usize = 3;

impl ImageSource {
    /// Makes all layers present and returns the rootfs digest.
    pub(super) async fn unpacked(&self, found: &Arc<Found>, cx: &VertexContext) -> Result<Digest, ExecError> {
        let origin = matches!(found.home, Home::Registry | Home::Store).then(|| found.reference.clone());
        self.put_in_place(found, origin, cx).await
    }

    /// As [`Self::unpacked`]; the layers can be had again at `origin`.
    async fn put_in_place(
        &self,
        found: &Arc<Found>,
        origin: Option<Reference>,
        cx: &VertexContext,
    ) -> Result<Digest, ExecError> {
        let manifest = found.image.manifest_digest();
        // One pull of an image at a time; whoever waited finds it done.
        let _turn = self.pulls.turn(manifest).await;
        let lease = self.leases.of(&cx.build);
        let missing = placing(&self.chains, found, None, &lease).missing()?;
        if missing.is_empty()
            && let Some(root) = self.chains.image_content(&manifest)?
        {
            return Ok(*root.digest());
        }
        let arrivals = futures_util::stream::iter(missing.into_iter().map(|i| {
            let lease = lease.clone();
            async move { Ok::<_, ExecError>((i, self.arrive(found, i, &lease, cx).await?)) }
        }));
        let mut arrived: Vec<(usize, Arrived)> = arrivals.buffer_unordered(AT_ONCE).try_collect().await?;
        arrived.sort_by_key(|(i, _)| *i);
        let (chains, found) = (self.chains.clone(), found.clone());
        blocking(move || Ok(*placing(&chains, &found, origin.as_ref(), &lease).place(arrived)?.digest()))
            .await
    }

    /// Makes the layers of an image of the store present, of which some may have been left where they are.
    ///
    /// # Errors
    /// A registry that does not give a layer any more.
    pub(crate) async fn complete(
        &self,
        name: &Reference,
        record: &ImageRecord,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let Some(image) = self.documents_of(record)? else { return Ok(()) };
        let layers = record.layers.clone().into();
        let found = Arc::new(Found { reference: name.clone(), image, layers, home: Home::Registry });
        self.put_in_place(&found, None, cx).await.map(drop)
    }

    /// Makes the layers of a chain present whose image was looked up in this build; its content where it is that image and
    /// no more.
    ///
    /// # Errors
    /// A registry that does not give a layer any more.
    pub(crate) async fn fetch_chain(
        &self,
        chain: &[LayerId],
        cx: &VertexContext,
    ) -> Result<Option<Digest>, ExecError> {
        // What one place does not give, another may have.
        let (mut content, mut failed) = (None, None);
        for found in self.of_build(&cx.build) {
            if chain.starts_with(&found.layers) {
                match self.unpacked(&found, cx).await {
                    Ok(root) if chain.len() == found.layers.len() => content = content.or(Some(root)),
                    Ok(_) => {}
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        match (content, failed) {
            (None, Some(error)) => Err(error),
            (content, _) => Ok(content),
        }
    }

    /// Downloads a layer and unpacks it as it comes, by itself. The compressed blob is kept.
    ///
    /// What a mirror sent wrong is downloaded again from elsewhere.
    async fn arrive(
        &self,
        found: &Arc<Found>,
        i: usize,
        lease: &Lease,
        cx: &VertexContext,
    ) -> Result<Arrived, ExecError> {
        let descriptor = found.image.manifest.layers[i].clone();
        let chains = self.chains.clone();
        if chains.store.blobs().hold(lease, &descriptor.digest).map_err(from_store)?.is_some() {
            let (stored, digest) = (chains.clone(), descriptor.digest);
            if let Some(arrived) = blocking(move || Arrived::of_blob(&stored, &digest)).await? {
                return Ok(arrived);
            }
        }
        match &found.home {
            Home::Registry | Home::Store => {}
            Home::Layout(layout) => {
                let (blob, fault) = self.layout_blob(layout, &descriptor.digest, cx).await?;
                let result = self.receive(blob, descriptor.digest, lease, cx).await;
                return match fault.take() {
                    Some(error) => Err(ExecError::failed(error)),
                    None => result,
                };
            }
            Home::Cache(store) => {
                let blob = store.blob(&descriptor).await.map_err(ExecError::failed)?;
                return self.receive(blob, descriptor.digest, lease, cx).await;
            }
        }
        let from = self.origin_of(found, i)?;
        loop {
            let stream = self.download(&from, &descriptor, &cx.progress, cx)?;
            let (reader, fault) = stream.into_reader();
            let result = self.receive(reader, descriptor.digest, lease, cx).await;
            match fault.take() {
                Some((error, true)) => {
                    tracing::warn!(%error, "a mirror sent wrong bytes; asking elsewhere");
                }
                Some((error, false)) => return Err(ExecError::failed(ImageError::from(error))),
                None => return result,
            }
        }
    }

    /// A registry client that shows how far its transfers are.
    pub(super) fn client_showing(&self, progress: &Progress, cx: &VertexContext) -> Client {
        let (progress, started) = (progress.clone(), SystemTime::now());
        self.client(cx).with_progress(Arc::new(move |t: Transfer| {
            let completed = (t.current == t.total).then(SystemTime::now);
            progress.status(Status {
                id: t.digest.to_string(),
                current: t.current,
                total: t.total,
                started,
                completed,
            });
        }))
    }

    /// Unpacks a layer as it comes.
    async fn receive(
        &self,
        blob: impl AsyncRead + Send + Unpin + 'static,
        digest: Digest,
        lease: &Lease,
        cx: &VertexContext,
    ) -> Result<Arrived, ExecError> {
        let (chains, lease) = (self.chains.clone(), lease.clone());
        let bridge = SyncIoBridge::new(blob);
        let work = blocking(move || {
            let staging = chains.store.layers().staging().map_err(from_store)?;
            let (arrived, ..) = Arrived::receive(&chains, staging, bridge, Some(&digest), &lease)?;
            Ok(arrived)
        });
        tokio::select! {
            r = work => r,
            () = cx.cancel.cancelled() => Err(ExecError::Canceled),
        }
    }

    /// Where a layer can be had: an image that was built here is made of others' layers.
    fn origin_of(&self, found: &Found, i: usize) -> Result<Reference, ExecError> {
        let known = self.chains.store.layers().get(&found.layers[i]).map_err(from_store)?;
        // Others may have the same layer packed in another way, which its own image knows nothing of.
        let wanted = found.image.manifest.layers[i].digest;
        let origin = known.and_then(|known| known.origin).filter(|origin| origin.blob.digest == wanted);
        let origin = origin.and_then(|origin| Reference::parse(&origin.reference).ok());
        Ok(origin.unwrap_or_else(|| found.reference.clone()))
    }

    fn download(
        &self,
        from: &Reference,
        descriptor: &Descriptor,
        progress: &Progress,
        cx: &VertexContext,
    ) -> Result<BlobStream, ExecError> {
        self.client_showing(progress, cx)
            .fetch_blob(from, descriptor)
            .map_err(|e| ExecError::failed(ImageError::from(e)))
    }
}

fn placing<'a>(
    chains: &'a Chains,
    found: &'a Found,
    origin: Option<&'a Reference>,
    lease: &'a Lease,
) -> Placing<'a> {
    Placing { chains, image: &found.image, layers: &found.layers, origin, lease }
}
