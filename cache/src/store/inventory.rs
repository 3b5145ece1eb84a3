//! Everything that takes space, and who needs it.

use std::collections::{HashMap, HashSet};

use solver::{Digest, LayerId};

use super::blobs::BlobEntry;
use super::cache_mounts::{MountEntry, Users};
use super::disk;
use super::error::StoreError;
use super::layers::LayerInfo;
use super::lease::LeaseState;
use super::shared::Shared;
use super::usage::UsageRecord;

/// A consistent picture of the store, as of [`Inventory::links`].
#[derive(Debug)]
pub(super) struct Inventory {
    pub(super) items: Vec<Item>,
    /// How many layers name each blob.
    pub(super) owners: HashMap<Digest, usize>,
    /// Blobs that images and history need for their own sake.
    pub(super) kept_blobs: HashSet<Digest>,
    /// Blobs that only one past build needs. They are no items: they go with the build.
    only_history: HashSet<Digest>,
    /// Whether there are thin layers, which need others.
    pub(super) has_thin: bool,
    /// [`LeaseState::links`] when it was made.
    pub(super) links: u64,
}

/// A thing that can go on its own.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) record: UsageRecord,
    pub(super) target: Target,
    /// Whether a layer is thin over it: that has to go first.
    pub(super) backs: bool,
}

/// What to remove.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// A layer with the blobs it names.
    Layer(LayerId, Vec<Digest>),
    /// A blob that no layer names.
    Blob(Digest),
    /// An instance of a cache mount, or a copy of a client's directory.
    Mount(String),
}

impl Inventory {
    /// Whether a blob is one past build's, and nothing else.
    pub(super) fn is_only_history(&self, digest: &Digest) -> bool {
        self.only_history.contains(digest)
    }
}

impl Shared {
    /// Takes the inventory. The sizes of cache mounts are left at zero where they are not known, see [`Self::measure`].
    pub(super) fn inventory(
        &self,
        state: &LeaseState,
        mounts: &HashMap<String, Users>,
    ) -> Result<Inventory, StoreError> {
        let blobs: HashMap<Digest, BlobEntry> = self.tables.blobs.all()?.into_iter().collect();
        let layers = self.tables.layers.all()?;
        let mut shared_layers = HashSet::new();
        let mut kept_blobs = HashSet::new();
        for (_, image) in self.tables.images.all()? {
            kept_blobs.extend(image.own_blobs());
            shared_layers.extend(image.layers);
        }
        let mut history: HashMap<Digest, usize> = HashMap::new();
        for (_, build) in self.tables.history.all()? {
            for digest in build.blobs().collect::<HashSet<_>>() {
                *history.entry(digest).or_default() += 1;
            }
        }
        let mut owners: HashMap<Digest, usize> = HashMap::new();
        let mut items = Vec::new();
        // Whether a layer in use is thin over it.
        let mut backings: HashMap<LayerId, bool> = HashMap::new();
        for (thin, info) in &layers {
            if let Some(backing) = info.backing {
                *backings.entry(backing).or_default() |= state.holds_layer(thin);
            }
        }
        for (id, info) in &layers {
            let own: HashSet<Digest> = info.blobs.iter().map(|blob| blob.digest).collect();
            let shared = shared_layers.contains(id);
            let mut item = layer_item(id, info, shared, state);
            if let Some(in_use) = backings.get(id) {
                item.backs = true;
                item.record.in_use |= in_use;
            }
            for digest in own {
                let owned = owners.entry(digest).or_default();
                *owned += 1;
                if let (1, Some(entry)) = (*owned, blobs.get(&digest)) {
                    item.record.size += entry.size;
                }
            }
            items.push(item);
        }
        for (digest, entry) in blobs.iter().filter(|(digest, _)| !owners.contains_key(digest)) {
            if !history.contains_key(digest) {
                items.push(blob_item(digest, entry, kept_blobs.contains(digest), state));
            }
        }
        let alone = |digest: &Digest| !owners.contains_key(digest) && !kept_blobs.contains(digest);
        let only_history = history.iter().filter(|(digest, builds)| **builds == 1 && alone(digest));
        let only_history = only_history.map(|(digest, _)| *digest).collect();
        kept_blobs.extend(history.into_keys());
        items.extend(self.tables.cache_mounts.all()?.into_iter().map(|(name, entry)| {
            let in_use = mounts.contains_key(&name);
            mount_item(name, entry, in_use)
        }));
        Ok(Inventory {
            items,
            owners,
            kept_blobs,
            only_history,
            has_thin: !backings.is_empty(),
            links: state.links,
        })
    }

    /// Fills in what only the disk knows.
    pub(super) fn measure(&self, item: &mut Item) {
        if let Target::Mount(name) = &item.target
            && item.record.size == 0
        {
            item.record.size = disk::tree_bytes(&self.layout.cache_mounts().join(name));
        }
    }
}

fn layer_item(id: &LayerId, info: &LayerInfo, shared: bool, state: &LeaseState) -> Item {
    let record = UsageRecord {
        id: id.hex(),
        kind: info.kind,
        description: info.description.clone(),
        size: info.size,
        created_ms: info.used.created_ms,
        last_used_ms: info.used.last_ms,
        usage_count: info.used.count,
        in_use: state.holds_layer(id),
        shared,
        mutable: false,
    };
    let target = Target::Layer(*id, info.blobs.iter().map(|blob| blob.digest).collect());
    Item { record, target, backs: false }
}

fn blob_item(digest: &Digest, entry: &BlobEntry, shared: bool, state: &LeaseState) -> Item {
    let record = UsageRecord {
        id: digest.to_string(),
        kind: entry.kind,
        description: entry.description.clone(),
        size: entry.size,
        created_ms: entry.used.created_ms,
        last_used_ms: entry.used.last_ms,
        usage_count: entry.used.count,
        in_use: state.holds_blob(digest),
        shared,
        mutable: false,
    };
    Item { record, target: Target::Blob(*digest), backs: false }
}

fn mount_item(name: String, entry: MountEntry, in_use: bool) -> Item {
    let record = UsageRecord {
        id: name.clone(),
        kind: entry.kind,
        description: entry.description,
        size: entry.size.unwrap_or(0),
        created_ms: entry.used.created_ms,
        last_used_ms: entry.used.last_ms,
        usage_count: entry.used.count,
        in_use,
        shared: false,
        mutable: true,
    };
    Item { record, target: Target::Mount(name), backs: false }
}
