//! Images and their names.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use solver::{Digest, LayerId};

use super::blobs::BlobRef;
use super::error::StoreError;
use super::lease::{Lease, LeaseState};
use super::shared::Shared;
use super::table::json_value;

/// What a name stands for. Everything it names is kept while the name exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The manifest or index that the name stands for.
    pub target: BlobRef,
    /// The manifest of this machine's platform; the target itself unless that is an index.
    pub manifest: Digest,
    /// The config of that manifest: the image ID.
    pub config: Digest,
    /// Layers, lowest first.
    pub layers: Vec<LayerId>,
    /// Their diff IDs, as in the config.
    pub diff_ids: Vec<Digest>,
    /// Further blobs to keep: other manifests of the index, attestations.
    pub blobs: Vec<Digest>,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// When the image was made according to its config, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it got this name, in milliseconds since 1970.
    pub tagged_ms: u64,
    /// Bytes of its layers, unpacked.
    pub size: u64,
}

json_value!(ImageRecord);

impl ImageRecord {
    /// The blobs that are kept for its own sake; those of its layers are kept with the layers.
    pub(super) fn own_blobs(&self) -> BTreeSet<Digest> {
        let fixed = [self.target.digest, self.manifest, self.config];
        fixed.into_iter().chain(self.blobs.iter().copied()).collect()
    }
}

/// The images of a store, by name.
#[derive(Debug, Clone)]
pub struct Images {
    pub(super) shared: Arc<Shared>,
}

impl Images {
    /// Names an image, in place of what had the name before.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] or [`StoreError::BlobMissing`] when something it names is not in the store.
    pub fn put(&self, name: &str, image: &ImageRecord) -> Result<(), StoreError> {
        let mut state = self.shared.leases.lock();
        self.check(image)?;
        state.links += 1;
        self.shared.tables.images.put(&name.to_owned(), image)
    }

    /// What a name stands for.
    pub fn get(&self, name: &str) -> Result<Option<ImageRecord>, StoreError> {
        self.shared.tables.images.get(&name.to_owned())
    }

    /// What a name stands for, with its layers and blobs held under `lease`.
    pub fn hold(&self, lease: &Lease, name: &str) -> Result<Option<ImageRecord>, StoreError> {
        let mut state = self.shared.leases.lock();
        let Some(image) = self.shared.tables.images.get(&name.to_owned())? else { return Ok(None) };
        hold(&mut state, lease, &image);
        Ok(Some(image))
    }

    /// All names, sorted, with what they stand for.
    pub fn list(&self) -> Result<Vec<(String, ImageRecord)>, StoreError> {
        self.shared.tables.images.all()
    }

    /// Gives an image another name. Returns `false` when `from` names nothing.
    pub fn tag(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        let mut state = self.shared.leases.lock();
        let Some(mut image) = self.shared.tables.images.get(&from.to_owned())? else { return Ok(false) };
        image.tagged_ms = self.shared.now_ms();
        state.links += 1;
        self.shared.tables.images.put(&to.to_owned(), &image)?;
        Ok(true)
    }

    /// Removes a name. Returns what it stood for; the data goes with the next prune that finds it unused.
    pub fn remove(&self, name: &str) -> Result<Option<ImageRecord>, StoreError> {
        let _state = self.shared.leases.lock();
        let found = self.shared.tables.images.get(&name.to_owned())?;
        if found.is_some() {
            self.shared.tables.images.delete(&name.to_owned())?;
        }
        Ok(found)
    }

    /// Whether everything an image names is there. The lease state is locked.
    fn check(&self, image: &ImageRecord) -> Result<(), StoreError> {
        let layers = self.shared.tables.layers.get_many(&image.layers)?;
        if let Some((id, _)) = image.layers.iter().zip(&layers).find(|(_, found)| found.is_none()) {
            return Err(StoreError::LayerMissing(*id));
        }
        let blobs: Vec<_> = image.own_blobs().into_iter().collect();
        let found = self.shared.tables.blobs.get_many(&blobs)?;
        match blobs.iter().zip(&found).find(|(_, found)| found.is_none()) {
            Some((digest, _)) => Err(StoreError::BlobMissing(*digest)),
            None => Ok(()),
        }
    }
}

fn hold(state: &mut LeaseState, lease: &Lease, image: &ImageRecord) {
    for id in &image.layers {
        lease.hold_layer(state, id);
    }
    for digest in image.own_blobs() {
        lease.hold_blob(state, &digest);
    }
}
