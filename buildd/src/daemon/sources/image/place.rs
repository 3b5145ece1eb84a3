//! Layers of an image on their way into the store: unpacked as their bytes come in, then put on those below them.

use std::io::Read;
use std::path::Path;

use cache::layer::{Base, Unpacked, unpack};
use cache::oci::{Decompressor, Descriptor, Reference, ResolvedImage};
use cache::remote::CREATED;
use cache::store::{BlobPurpose, BlobRef, LayerAbout, Lease, Origin, Staging, StoreError};
use cache::tree::{NodeId, Trees};
use solver::{Digest, ExecError, LayerId, Output};

use crate::daemon::chains::{Chains, from_store};
use crate::daemon::worker::UNPACK_LIMITS;

/// A layer whose bytes have come in, not yet in its place.
#[derive(Debug)]
pub(crate) struct Arrived {
    staging: Staging,
    /// `None` where it cannot be unpacked without what lies below it.
    unpacked: Option<Unpacked>,
}

/// An image whose layers are put in their places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placing<'a> {
    /// Layers and trees.
    pub chains: &'a Chains,
    /// The image's documents.
    pub image: &'a ResolvedImage,
    /// The ids of its layers, lowest first.
    pub layers: &'a [LayerId],
    /// Where the layers can be had again; `None` for those of an archive.
    pub origin: Option<&'a Reference>,
    /// Holds what is stored.
    pub lease: &'a Lease,
}

/// A layer is not what its image says.
#[derive(Debug, thiserror::Error)]
#[error("layer {descriptor} unpacks to diff ID {got}, the image config says {want}")]
struct WrongDiffId {
    descriptor: Digest,
    want: Digest,
    got: Digest,
}

/// A layer that did not come in, or for which there is no room.
#[derive(Debug, thiserror::Error)]
#[error("cannot receive layer `{layer}`")]
struct NotReceived {
    layer: String,
    #[source]
    source: std::io::Error,
}

impl Arrived {
    /// Unpacks a layer while its bytes, plain or compressed, go into a blob as they are. Returns the blob's digest and
    /// length, too. Blocking.
    ///
    /// # Errors
    /// A full disk, a reader that fails, bytes that are not those of `expected`.
    pub(crate) fn receive(
        chains: &Chains,
        staging: Staging,
        from: impl Read,
        expected: Option<&Digest>,
        lease: &Lease,
    ) -> Result<(Self, Digest, u64), ExecError> {
        let writer = chains.store.blobs().writer().map_err(from_store)?;
        let mut tee = Tee { from, to: writer };
        let unpacked = unpack_alone(chains, &staging, &mut tee);
        // Even where unpacking alone failed the blob is needed whole: it is unpacked again on what lies below.
        std::io::copy(&mut tee, &mut std::io::sink()).map_err(|source| {
            let layer = expected.map_or_else(|| "of an archive".to_owned(), ToString::to_string);
            ExecError::failed(NotReceived { layer, source })
        })?;
        let purpose = BlobPurpose { description: "layer".to_owned(), ..BlobPurpose::default() };
        let size = tee.to.size();
        let digest = tee.to.commit(lease, expected, purpose).map_err(from_store)?;
        Ok((Self { staging, unpacked: unpacked.ok() }, digest, size))
    }

    /// Unpacks a blob that is in the store; `None` for one that is damaged and therefore gone now. Blocking.
    ///
    /// # Errors
    /// A blob that is gone, a store that cannot be read.
    pub(crate) fn of_blob(chains: &Chains, blob: &Digest) -> Result<Option<Self>, ExecError> {
        let blobs = chains.store.blobs();
        match blobs.check(blob) {
            Err(damaged @ StoreError::BlobDamaged { .. }) => {
                tracing::warn!("{damaged}; fetching it again");
                return Ok(None);
            }
            checked => checked.map_err(from_store)?,
        }
        let staging = chains.store.layers().staging().map_err(from_store)?;
        let unpacked = unpack_alone(chains, &staging, blobs.open(blob).map_err(from_store)?).ok();
        Ok(Some(Self { staging, unpacked }))
    }
}

fn unpack_alone(chains: &Chains, staging: &Staging, blob: impl Read) -> Result<Unpacked, ExecError> {
    let plain = Decompressor::new(blob).map_err(ExecError::failed)?;
    let base = Base::scratch(chains.trees.clone());
    unpack(plain, &staging.path().join("alone"), base, UNPACK_LIMITS).map_err(ExecError::failed)
}

impl Placing<'_> {
    /// Which layers are not in the store; those that are become held.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn missing(&self) -> Result<Vec<usize>, ExecError> {
        let layers = self.chains.store.layers();
        let mut missing = Vec::new();
        for (i, id) in self.layers.iter().enumerate() {
            if !layers.hold(self.lease, id).map_err(from_store)?.is_some_and(|l| l.present) {
                missing.push(i);
            }
        }
        Ok(missing)
    }

    /// Puts what arrived, in order, on what lies below it, lowest first, and returns the root of the whole tree.
    /// Blocking.
    ///
    /// # Errors
    /// A layer that is not what the image's config promises, or that cannot be unpacked.
    pub(crate) fn place(&self, arrived: Vec<(usize, Arrived)>) -> Result<NodeId, ExecError> {
        let layers = self.chains.store.layers();
        let mut arrived = arrived.into_iter().peekable();
        let mut root = Trees::empty();
        for (i, id) in self.layers.iter().enumerate() {
            let entries = match arrived.next_if(|(at, _)| *at == i) {
                None => layers.entries(id).map_err(from_store)?,
                Some((_, Arrived { staging, unpacked })) => {
                    let (unpacked, dir) = match unpacked.filter(|u| !u.depends_on_parent) {
                        Some(unpacked) => (unpacked, staging.path().join("alone")),
                        None => {
                            let dir = staging.path().join("placed");
                            (self.again(i, &root, &dir)?, dir)
                        }
                    };
                    self.check(i, &unpacked)?;
                    let mut layer = unpacked.layer;
                    layer.id = *id;
                    let about = about(self.image, i, self.origin);
                    let about = LayerAbout { blobs: vec![blob(self.image, i)], ..about };
                    layers.insert(self.lease, &layer, about, &dir).map_err(from_store)?;
                    layer.entries
                }
            };
            root = self.chains.trees.apply(root, &entries).map_err(ExecError::failed)?;
        }
        self.chains.store.set_content(&self.image.manifest_digest(), &root).map_err(from_store)?;
        Ok(root)
    }

    /// Unpacks a layer on what lies below it.
    fn again(&self, i: usize, root: &NodeId, dir: &Path) -> Result<Unpacked, ExecError> {
        let below = Output { chain: self.layers[..i].into(), content: Some(*root.digest()), local: None };
        let blob =
            self.chains.store.blobs().open(&self.image.manifest.layers[i].digest).map_err(from_store)?;
        let plain = Decompressor::new(blob).map_err(ExecError::failed)?;
        unpack(plain, dir, self.chains.base(&below)?, UNPACK_LIMITS).map_err(ExecError::failed)
    }

    /// A layer gets its name only when its bytes are those that the config promises.
    fn check(&self, i: usize, unpacked: &Unpacked) -> Result<(), ExecError> {
        let (descriptor, want) = (&self.image.manifest.layers[i], self.image.config.rootfs.diff_ids[i]);
        if unpacked.diff_id == want {
            return Ok(());
        }
        Err(ExecError::failed(WrongDiffId { descriptor: descriptor.digest, want, got: unpacked.diff_id }))
    }
}

/// What is said of an image's layer `i`, counted from the bottom; `origin` is where it can be had.
pub(super) fn about(image: &ResolvedImage, i: usize, origin: Option<&Reference>) -> LayerAbout {
    let origin = origin.map(|r| Origin { reference: r.to_string(), blob: blob(image, i) });
    LayerAbout {
        diff_id: Some(image.config.rootfs.diff_ids[i]),
        description: match &origin {
            Some(origin) => format!("pulled from {}", origin.reference),
            None => "loaded from an archive".to_owned(),
        },
        origin,
        created_ms: created_ms(&image.manifest.layers[i]),
        ..LayerAbout::default()
    }
}

/// When a layer was made, where a cache tells that.
fn created_ms(layer: &Descriptor) -> Option<u64> {
    let at: jiff::Timestamp = layer.annotations.get(CREATED)?.parse().ok()?;
    at.as_millisecond().try_into().ok()
}

fn blob(image: &ResolvedImage, i: usize) -> BlobRef {
    let d = &image.manifest.layers[i];
    BlobRef { media_type: d.media_type.clone(), digest: d.digest, size: d.size }
}

/// Reads through to a writer.
struct Tee<R, W> {
    from: R,
    to: W,
}

impl<R: Read, W: std::io::Write> Read for Tee<R, W> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buf)?;
        self.to.write_all(&buf[..n])?;
        Ok(n)
    }
}
