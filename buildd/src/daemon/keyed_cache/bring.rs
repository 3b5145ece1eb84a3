//! Bringing lent layers in.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use cache::Hashing;
use cache::layer::{Entries, LayerError, restore};
use cache::oci::{Decompressor, Descriptor};
use cache::store::{BlobRef, BlobWriter, LayerAbout, Lease, StoreError, UsageKind};
use cache::tree::Trees;
use futures_util::{StreamExt as _, TryStreamExt as _};
use solver::{Digest, ExecError, LayerId, Output, Record, Status, VertexContext};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use tokio_util::io::SyncIoBridge;

use super::home::HomeError;
use super::{KeyedCaches, Located, SharedBlob, SharedLayer, Source};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::{Chains, from_store};
use crate::daemon::export::{LayerBlob, layer_purpose};
use crate::daemon::turns::Turns;

/// How many layers come in at a time.
const AT_ONCE: usize = 4;

/// How large the list of a layer's entries may be, in bytes, as it is shared.
const ENTRIES_LIMIT: u64 = 64 << 20;

/// So many layers come in at a time, for all builds.
static AT_WORK: Semaphore = Semaphore::const_new(2 * AT_ONCE);

/// Layers that come in.
static TURNS: LazyLock<Turns<LayerId>> = LazyLock::new(Turns::default);

/// A lent layer that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum BringError {
    /// The store did not give it.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// What it gave is something else.
    #[error("blob `{blob}` of {store} is damaged: {why}")]
    Damaged { blob: Digest, store: String, why: String },
    /// The connection broke.
    #[error("the store broke off")]
    Broken(#[source] std::io::Error),
    /// It cannot be stored here.
    #[error(transparent)]
    Here(ExecError),
    /// Layer and record do not fit together.
    #[error("the layers of a record give {found} and not {told}")]
    OtherContent { found: Digest, told: solver::Digest },
}

impl KeyedCaches {
    /// Whether the layers of a lent record are here or can be had.
    pub(in crate::daemon) fn offers(&self, record: &Record, cx: &VertexContext) -> bool {
        let lease = self.parts.leases.of(&cx.build);
        let layers = self.parts.chains.store.layers();
        let mut own = record.outputs.values().filter_map(|output| output.layer);
        own.all(|id| {
            let known = self.lock();
            let lent = known.layers.contains_key(&id) && !known.refused.contains_key(&id);
            drop(known);
            lent || layers.hold_present(&lease, &id).unwrap_or(false)
        })
    }

    /// Brings in the layers of a lent record, `outputs` being what it gives on the chains of this build, of which all that is below is
    /// here; whether that worked.
    pub(in crate::daemon) async fn bring(
        &self,
        record: &Record,
        outputs: &BTreeMap<u32, Output>,
        cx: &VertexContext,
    ) -> bool {
        for (index, output) in outputs {
            let own = record.outputs.get(index).and_then(|output| output.layer);
            let brought = async {
                if let Some(own) = own {
                    self.layer(own, &record.name, cx).await?;
                }
                self.tree(output).await
            };
            if let Err(error) = brought.await {
                let why = told(&error);
                if !cx.cancel.is_cancelled() {
                    tracing::warn!(build = cx.build, "a shared result cannot be had: {why}");
                }
                self.refuse(own, why);
                return false;
            }
        }
        true
    }

    /// Brings in those layers of a chain that others lend to this build.
    ///
    /// # Errors
    /// One that cannot be had.
    pub(in crate::daemon) async fn bring_chain(
        &self,
        chain: &[LayerId],
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let lent: Vec<LayerId> = {
            let known = self.lock();
            chain.iter().filter(|id| known.layers.contains_key(*id)).copied().collect()
        };
        let one = |id: LayerId| async move {
            self.layer(id, "layer", cx).await.map_err(|error| {
                self.refuse(Some(id), told(&error));
                ExecError::failed(error)
            })
        };
        futures_util::stream::iter(lent.into_iter().map(one)).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Does without a layer from now on; why it was first refused is what people are told.
    fn refuse(&self, layer: Option<LayerId>, why: String) {
        let Some(layer) = layer else { return };
        let mut known = self.lock();
        let places = known.layers.get(&layer).map_or(&[][..], Vec::as_slice);
        for source in known.sources.iter() {
            let id = source.wanted.place.id();
            if !known.refused.contains_key(&layer) && places.iter().any(|located| located.id == id) {
                source.faults().lost(&why);
            }
        }
        known.refused.entry(layer).or_insert(why);
    }

    /// The blob of a layer that others lend to this build and that is not here.
    pub(in crate::daemon) fn lent(&self, id: &LayerId, build: &str) -> Option<LayerBlob> {
        let located = self.lock().located(id).cloned()?;
        let SharedLayer { id, tar, diff_id, created_ms, .. } = located.layer;
        let lease = self.parts.leases.of(build);
        let here = self.parts.chains.store.layers().hold_present(&lease, &id).unwrap_or(false);
        let descriptor = Descriptor::new(tar.media_type, tar.digest, tar.size);
        (!here).then_some(LayerBlob { id, diff_id, descriptor, created_ms, elsewhere: true })
    }

    pub(super) async fn layer(&self, id: LayerId, name: &str, cx: &VertexContext) -> Result<(), BringError> {
        let _turn = TURNS.turn(id).await;
        let lease = self.parts.leases.of(&cx.build);
        let layers = self.parts.chains.store.layers();
        let here = layers.hold_present(&lease, &id).map_err(|e| BringError::Here(from_store(e)))?;
        if here {
            return Ok(());
        }
        loop {
            let located = self.lock().located(&id).cloned();
            let Some(located) = located else {
                return Err(BringError::Here(ExecError::Changed { path: id.to_string() }));
            };
            let fetch = async {
                let _turn = AT_WORK.acquire().await;
                self.fetch(name, &located, cx).await
            };
            let fetched = tokio::select! {
                fetched = fetch => fetched,
                () = cx.cancel.cancelled() => Err(BringError::Here(ExecError::Canceled)),
            };
            let Err(error) = fetched else { return Ok(()) };
            if is_lost(&error, &located).await {
                // The other one was not looked at, or not to its end.
                let blobs = [&located.layer.entries, &located.layer.tar];
                self.lock().damaged.extend(blobs.map(|blob| (located.id.clone(), blob.clone())));
            }
            if matches!(error, BringError::Here(_)) || !self.lock().pass_over(&located) {
                return Err(error);
            }
            let why = told(&error);
            tracing::warn!(build = cx.build, "a layer is looked for in another cache: {why}");
            let sources = self.lock().sources.clone();
            let from = |source: &&Arc<Source>| source.wanted.place.id() == located.id;
            sources.iter().filter(from).for_each(|source| source.faults().lost(&why));
        }
    }

    async fn fetch(&self, name: &str, located: &Located, cx: &VertexContext) -> Result<(), BringError> {
        let Located { home, store, layer, .. } = located;
        let mut status = Status {
            id: format!("{store} {}", layer.tar.digest),
            current: 0,
            total: layer.tar.size,
            started: SystemTime::now(),
            completed: None,
        };
        cx.progress.status(status.clone());
        let entries = entries(located).await?;
        let from = SyncIoBridge::new(home.blob(&layer.tar).await?);
        let incoming = Coming {
            chains: self.parts.chains.clone(),
            lease: self.parts.leases.of(&cx.build),
            layer: layer.clone(),
            name: name.to_owned(),
            // An image of the layer would be stored as these very bytes.
            keep: self.image_form.get().is_some_and(|packing| packing.makes(&layer.tar.media_type)),
        };
        if let Some(why) = blocking(move || incoming.take_in(&entries, from)).await? {
            return Err(damaged(located, &layer.tar, why));
        }
        status.current = status.total;
        status.completed = Some(SystemTime::now());
        cx.progress.status(status);
        Ok(())
    }

    /// Finds out what an output's layers contain, which has to be what is said of it: steps that run on it are known by that to others.
    async fn tree(&self, output: &Output) -> Result<(), BringError> {
        let Some(told) = output.content else { return Ok(()) };
        let (mut below, mut root) = (0, Trees::empty());
        {
            let known = self.lock();
            let found = (1..=output.chain.len())
                .rev()
                .find_map(|n| Some((n, *known.contents.get(&output.chain[..n])?)));
            if let Some((n, found)) = found {
                (below, root) = (n, found);
            }
        }
        let (chains, chain) = (self.parts.chains.clone(), output.chain.clone());
        let work = blocking(move || {
            let layers = chains.store.layers();
            let mut roots = Vec::new();
            for (n, id) in chain.iter().enumerate().skip(below) {
                let entries = layers.entries(id).map_err(from_store)?;
                root = chains.trees.apply(root, &entries).map_err(ExecError::failed)?;
                roots.push((chain[..=n].to_vec(), root));
            }
            Ok((root, roots))
        });
        let (root, roots) = work.await.map_err(BringError::Here)?;
        self.lock().contents.extend(roots);
        match *root.digest() {
            found if found == told => Ok(()),
            found => Err(BringError::OtherContent { found, told }),
        }
    }
}

/// The list of what a layer holds, which is the layer that its id says.
async fn entries(located: &Located) -> Result<Entries, BringError> {
    let Located { home, layer, .. } = located;
    if layer.entries.size > ENTRIES_LIMIT {
        return Err(damaged(located, &layer.entries, "it is too large".to_owned()));
    }
    let mut packed = Vec::new();
    let mut reader = home.blob(&layer.entries).await?;
    reader.read_to_end(&mut packed).await.map_err(BringError::Broken)?;
    let (wanted, id) = (layer.entries.digest, layer.id);
    let entries = blocking(move || match Digest::of(&packed) == wanted {
        true => cache::keyed::unpack(&packed, &id).map_err(|e| e.to_string()),
        false => Err("its digest is another one".to_owned()),
    });
    entries.await.map_err(|why| damaged(located, &layer.entries, why))
}

fn damaged(located: &Located, blob: &SharedBlob, why: String) -> BringError {
    BringError::Damaged { blob: blob.digest, store: located.store.clone(), why }
}

/// A layer on its way in.
struct Coming {
    chains: Chains,
    lease: Lease,
    layer: SharedLayer,
    /// What it is of.
    name: String,
    /// Its blob stays here, too.
    keep: bool,
}

impl Coming {
    /// Unpacks a layer and adds it to the store; what is wrong with its blob where that is not what it should be. Blocking.
    fn take_in(self, entries: &Entries, from: impl Read) -> Result<Option<String>, BringError> {
        let here = |error| BringError::Here(from_store(error));
        let Self { chains, lease, layer, name, keep } = self;
        let staging = chains.store.layers().staging().map_err(here)?;
        let dir = staging.path().join("layer");
        let mut from = match keep {
            true => Incoming::Kept { from, to: chains.store.blobs().writer().map_err(here)?, full: None },
            false => Incoming::Read(Hashing::new(from)),
        };
        let restored = match Decompressor::new(&mut from) {
            Ok(mut plain) => restore(entries, &mut plain, &dir, &chains.trees),
            Err(source) => Err(LayerError::Stream { action: "read", source }),
        };
        let rest = std::io::copy(&mut from, &mut std::io::sink());
        if let Incoming::Kept { full: Some(error), .. } = from {
            return Err(BringError::Here(ExecError::failed(error)));
        }
        rest.map_err(BringError::Broken)?;
        if let Some(size) = from.end(&layer.tar.digest, &lease).map_err(here)? {
            // A store may also break off without a word.
            let cut = size < layer.tar.size;
            let broken = || BringError::Broken(std::io::ErrorKind::UnexpectedEof.into());
            return if cut { Err(broken()) } else { Ok(Some("its digest is another one".to_owned())) };
        }
        let restored = match restored {
            Ok(restored) if restored.diff_id == layer.diff_id => restored,
            Ok(_) => return Ok(Some("its diff ID is another one".to_owned())),
            // All of it came: that it cannot be read is how it was written.
            Err(
                e @ (LayerError::Other(_) | LayerError::Tar(_) | LayerError::Stream { action: "read", .. }),
            ) => {
                return Ok(Some(crate::causes::causes(&e)));
            }
            Err(error) => return Err(BringError::Here(ExecError::failed(error))),
        };
        let SharedBlob { digest, size, media_type } = layer.tar;
        let about = LayerAbout {
            diff_id: Some(layer.diff_id),
            blobs: keep.then_some(BlobRef { digest, size, media_type }).into_iter().collect(),
            kind: UsageKind::Regular,
            description: name,
            created_ms: Some(layer.created_ms),
            ..LayerAbout::default()
        };
        chains.store.layers().insert(&lease, &restored.layer, about, &dir).map_err(here)?;
        Ok(None)
    }
}

/// Why a layer cannot be had, for people.
fn told(error: &BringError) -> String {
    solver::redacted(&crate::causes::causes(error)).into_owned()
}

/// A blob on its way in.
enum Incoming<R> {
    /// It is read and forgotten.
    Read(Hashing<R>),
    /// It stays here, unless that cannot be written.
    Kept { from: R, to: BlobWriter, full: Option<std::io::Error> },
}

impl<R> Incoming<R> {
    /// Once all was read: the length in bytes of what came where it is not what was `wanted`.
    fn end(self, wanted: &Digest, lease: &Lease) -> Result<Option<u64>, StoreError> {
        match self {
            Self::Read(hashed) => {
                let (_, digest, size) = hashed.finish();
                Ok((digest != *wanted).then_some(size))
            }
            Self::Kept { to, .. } => match to.commit(lease, Some(wanted), layer_purpose()) {
                Ok(_) => Ok(None),
                Err(StoreError::BlobMismatch { found_size, .. }) => Ok(Some(found_size)),
                Err(error) => Err(error),
            },
        }
    }
}

impl<R: Read> Read for Incoming<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Read(hashed) => hashed.read(buf),
            Self::Kept { from, to, full } => {
                let n = from.read(buf)?;
                to.write_all(&buf[..n])
                    .map_err(|error| {
                        let kind = error.kind();
                        *full = Some(error);
                        kind.into()
                    })
                    .map(|()| n)
            }
        }
    }
}

/// Whether a layer could not be had because the store does not have it as it was, rather than for now.
async fn is_lost(error: &BringError, located: &Located) -> bool {
    match error {
        BringError::Damaged { .. } => true,
        BringError::Home(_) | BringError::Broken(_) => {
            let SharedLayer { entries, tar, .. } = &located.layer;
            let (entries, tar) = (located.home.stat(entries).await, located.home.stat(tar).await);
            [entries, tar].iter().any(|there| matches!(there, Ok(None)))
        }
        BringError::Here(_) | BringError::OtherContent { .. } => false,
    }
}
