//! Layers: directories in normal form, and what is known of layers that are not unpacked yet.

mod staging;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use serde::{Deserialize, Serialize};
use solver::{Digest, LayerId};

pub use staging::Staging;

use super::blobs::BlobRef;
use super::epoch::Epoch;
use super::error::StoreError;
use super::lease::{Lease, LeaseState};
use super::shared::Shared;
use super::table::json_value;
use super::usage::{UsageKind, Use};
use crate::layer::{CommittedLayer, Entries};

/// Where a layer can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The image reference, `docker.io/library/debian:12`.
    pub reference: String,
    /// The compressed blob there.
    pub blob: BlobRef,
}

/// What is said of a layer beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerAbout {
    /// Digest of its tar stream, where it is known.
    pub diff_id: Option<Digest>,
    /// Its compressed forms, where they exist.
    pub blobs: Vec<BlobRef>,
    /// Where it came from, for a pulled layer.
    pub origin: Option<Origin>,
    /// What kind of thing it is.
    pub kind: UsageKind,
    /// What made it, as `du` shows it.
    pub description: String,
    /// When it was made, in milliseconds since 1970; `None` is now.
    pub created_ms: Option<u64>,
}

/// What the store knows of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Whether its directory is there; else it can be unpacked from a blob or its origin.
    pub present: bool,
    /// Bytes on disk, without its blobs, and of a thin layer without its backing.
    pub size: u64,
    /// How many files, directories and whiteouts it has.
    pub entries: u64,
    /// The layer that it is thin over, for a present layer that is ([`crate::layer::Backing`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing: Option<LayerId>,
    /// Digest of the encoded list of its entries, for a present layer.
    pub(super) entries_digest: Option<Digest>,
    /// Digest of its tar stream, once it is known.
    pub diff_id: Option<Digest>,
    /// Its compressed forms. A blob may have been pruned: ask [`super::Blobs`].
    pub blobs: Vec<BlobRef>,
    /// Where it came from, for a pulled layer.
    pub origin: Option<Origin>,
    /// What kind of thing it is.
    pub kind: UsageKind,
    /// What made it.
    pub description: String,
    pub(super) used: Use,
    pub(super) epoch: Epoch,
}

json_value!(LayerInfo);

impl LayerInfo {
    /// When it was stored, in milliseconds since 1970.
    pub fn created_ms(&self) -> u64 {
        self.used.created_ms
    }

    /// When it was last used, in milliseconds since 1970.
    pub fn last_used_ms(&self) -> u64 {
        self.used.last_ms
    }
}

/// The layers of a store.
#[derive(Debug, Clone)]
pub struct Layers {
    pub(super) shared: Arc<Shared>,
}

impl Layers {
    /// A directory to make a layer in, on the file system of the layers.
    pub fn staging(&self) -> Result<Staging, StoreError> {
        Staging::create(&self.shared.layout)
    }

    /// Takes the directory `fs` over as the layer's content and holds the layer under `lease`.
    ///
    /// `fs` lies on the store's file system, in normal form, unmounted; usually in a [`Staging`]. A layer that is
    /// there already stays as it is; `fs` is gone in any case.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when it is thin over a layer that is not there; when it cannot be stored.
    pub fn insert(
        &self,
        lease: &Lease,
        layer: &CommittedLayer,
        about: LayerAbout,
        fs: &Path,
    ) -> Result<LayerInfo, StoreError> {
        if let Some(known) = self.hold(lease, &layer.id)?.filter(|known| known.present) {
            return Ok(known);
        }
        let encoded = layer.entries.encode();
        let ready = staging::Ready::make(&self.shared.layout, fs, &encoded)?;
        let mut state = self.shared.leases.lock();
        let known = self.shared.tables.layers.get(&layer.id)?;
        if let Some(known) = known.as_ref().filter(|known| known.present) {
            lease.hold_layer(&mut state, &layer.id);
            return Ok(known.clone());
        }
        if let Some(backing) = &layer.backing {
            let there = self.shared.tables.layers.get(backing)?;
            let there = there.filter(|info| info.present && info.backing.is_none());
            there.ok_or(StoreError::LayerMissing(*backing))?;
            lease.hold_layer(&mut state, backing);
        }
        self.move_in(&layer.id, ready)?;
        let content = LayerContent {
            size: layer.disk_bytes,
            entries: layer.entries.len() as u64,
            digest: Digest::of(&encoded),
            backing: layer.backing,
        };
        let mut info = self.info(about, Some(content));
        if let Some(known) = known {
            info = merge(info, known);
        }
        self.write(&mut state, lease, &layer.id, info)
    }

    /// Notes a layer that can be fetched later, and holds it. What is known of it already stays.
    pub fn declare(&self, lease: &Lease, id: &LayerId, about: LayerAbout) -> Result<LayerInfo, StoreError> {
        let mut state = self.shared.leases.lock();
        let info = self.info(about, None);
        let info = match self.shared.tables.layers.get(id)? {
            Some(known) => merge(known, info),
            None => info,
        };
        self.write(&mut state, lease, id, info)
    }

    /// Holds a layer under `lease`; `None` when the store does not know it. The first time for a lease counts as a use.
    pub fn hold(&self, lease: &Lease, id: &LayerId) -> Result<Option<LayerInfo>, StoreError> {
        self.hold_where(lease, id, |_| true)
    }

    /// Holds a layer whose files are here, as [`Self::hold`]; whether they are.
    pub fn hold_present(&self, lease: &Lease, id: &LayerId) -> Result<bool, StoreError> {
        Ok(self.hold_where(lease, id, |info| info.present)?.is_some())
    }

    fn hold_where(
        &self,
        lease: &Lease,
        id: &LayerId,
        wanted: impl FnOnce(&LayerInfo) -> bool,
    ) -> Result<Option<LayerInfo>, StoreError> {
        let mut state = self.shared.leases.lock();
        let Some(mut info) = self.shared.tables.layers.get(id)?.filter(wanted) else { return Ok(None) };
        if lease.hold_layer(&mut state, id) {
            info.used.again(self.shared.now_ms());
            self.shared.tables.layers.put(id, &info)?;
        }
        Ok(Some(info))
    }

    /// What is known of a layer.
    pub fn get(&self, id: &LayerId) -> Result<Option<LayerInfo>, StoreError> {
        self.shared.tables.layers.get(id)
    }

    /// The layer's directories, for a layer that is present, lowest first: its own, and below it that of the layer that
    /// it is thin over. Hold the layer first.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when it is not there.
    pub fn dirs(&self, id: &LayerId) -> Result<Vec<PathBuf>, StoreError> {
        let info = self.shared.tables.layers.get(id)?.filter(|info| info.present);
        let info = info.ok_or(StoreError::LayerMissing(*id))?;
        Ok(info.backing.iter().chain([id]).map(|id| self.shared.layout.snapshot_fs(id)).collect())
    }

    /// The list of what a present layer holds. Hold the layer first.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when it is not there, [`StoreError::LayerDamaged`] when its list is not what
    /// was written.
    pub fn entries(&self, id: &LayerId) -> Result<Entries, StoreError> {
        let info = self.shared.tables.layers.get(id)?.filter(|info| info.present);
        let info = info.ok_or(StoreError::LayerMissing(*id))?;
        let path = self.shared.layout.snapshot_entries(id);
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        let sound = info.entries_digest == Some(Digest::of(&bytes));
        let entries = sound.then(|| Entries::decode(&bytes).ok()).flatten();
        entries.ok_or_else(|| StoreError::LayerDamaged { layer: *id, path: PathBuf::from("entries") })
    }

    /// Removes the content of a layer that turned out to be damaged, whoever needs it.
    ///
    /// So are those that are thin over it. A layer with an origin or a blob stays known, so that it can be unpacked again; another one is forgotten,
    /// and its step runs again.
    pub fn discard(&self, id: &LayerId) -> Result<(), StoreError> {
        let state = self.shared.leases.lock();
        let gone = self.shared.discard_layer(id)?;
        drop(state);
        gone.iter().for_each(|path| super::trash::remove(path));
        Ok(())
    }

    /// Counts a use of each layer that is known.
    pub fn touch(&self, ids: &[LayerId]) -> Result<(), StoreError> {
        let _state = self.shared.leases.lock();
        let now = self.shared.now_ms();
        let mut batch = super::db::Batch::default();
        for (id, info) in ids.iter().zip(self.shared.tables.layers.get_many(ids)?) {
            if let Some(mut info) = info {
                info.used.again(now);
                self.shared.tables.layers.put_in(&mut batch, id, &info);
            }
        }
        self.shared.db.write(&batch, super::db::Sync::No)
    }

    /// Notes the digest of the layer's tar stream, and the form of the layer that was made on the way.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when the store does not know the layer.
    pub fn add_form(&self, id: &LayerId, diff_id: &Digest, blob: BlobRef) -> Result<(), StoreError> {
        self.change(id, |info| {
            info.diff_id = Some(*diff_id);
            add_blob(&mut info.blobs, blob);
        })
    }

    /// Notes a compressed form of the layer, which from then on lives as long as the layer.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when the store does not know the layer.
    pub fn add_blob(&self, id: &LayerId, blob: BlobRef) -> Result<(), StoreError> {
        self.change(id, |info| add_blob(&mut info.blobs, blob))
    }

    fn change(&self, id: &LayerId, change: impl FnOnce(&mut LayerInfo)) -> Result<(), StoreError> {
        let mut state = self.shared.leases.lock();
        let mut info = self.shared.tables.layers.get(id)?.ok_or(StoreError::LayerMissing(*id))?;
        change(&mut info);
        state.links += 1;
        self.shared.tables.layers.put(id, &info)
    }

    /// Writes an entry and holds it; the lease state is locked.
    fn write(
        &self,
        state: &mut LeaseState,
        lease: &Lease,
        id: &LayerId,
        info: LayerInfo,
    ) -> Result<LayerInfo, StoreError> {
        self.shared.tables.layers.put(id, &info)?;
        state.links += 1;
        lease.hold_layer(state, id);
        Ok(info)
    }

    /// Renames what is ready to the layer's place.
    fn move_in(&self, id: &LayerId, ready: staging::Ready) -> Result<(), StoreError> {
        let to = self.shared.layout.snapshot(id);
        if to.exists() {
            // Left by an insert whose entry could not be written.
            self.shared.trash.take(&to)?;
        }
        ready.rename(&to)
    }

    fn info(&self, about: LayerAbout, content: Option<LayerContent>) -> LayerInfo {
        let now = Use::new(self.shared.now_ms());
        LayerInfo {
            present: content.is_some(),
            size: content.as_ref().map_or(0, |c| c.size),
            entries: content.as_ref().map_or(0, |c| c.entries),
            backing: content.as_ref().and_then(|c| c.backing),
            entries_digest: content.map(|c| c.digest),
            diff_id: about.diff_id,
            blobs: about.blobs,
            origin: about.origin,
            kind: about.kind,
            description: about.description,
            used: Use { created_ms: about.created_ms.unwrap_or(now.created_ms), ..now },
            epoch: self.shared.epochs.stamp(),
        }
    }
}

/// What is known of a layer that is present.
struct LayerContent {
    size: u64,
    entries: u64,
    digest: Digest,
    backing: Option<LayerId>,
}

/// Adds to `info` what another description of the same layer says beyond it.
fn merge(mut info: LayerInfo, other: LayerInfo) -> LayerInfo {
    info.diff_id = info.diff_id.or(other.diff_id);
    info.origin = info.origin.or(other.origin);
    info.used.created_ms = info.used.created_ms.min(other.used.created_ms);
    info.used.count += other.used.count;
    for blob in other.blobs {
        add_blob(&mut info.blobs, blob);
    }
    info
}

fn add_blob(blobs: &mut Vec<BlobRef>, blob: BlobRef) {
    if !blobs.iter().any(|b| b.digest == blob.digest) {
        blobs.push(blob);
    }
}
