//! Where things lie below the root.

use std::path::{Path, PathBuf};

use solver::{Digest, LayerId};

/// The paths of one store.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn format(&self) -> PathBuf {
        self.root.join("format")
    }

    pub(super) fn metadata(&self) -> PathBuf {
        self.root.join("metadata")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs").join("sha256")
    }

    /// `blobs/sha256/xx/<hex>`: the two digits keep directories small.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs().join(&hex[..2]).join(hex)
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(super) fn snapshot(&self, layer: &LayerId) -> PathBuf {
        self.snapshots().join(layer.hex())
    }

    pub(super) fn snapshot_fs(&self, layer: &LayerId) -> PathBuf {
        self.snapshot(layer).join("fs")
    }

    /// The encoded list of what the layer holds.
    pub(super) fn snapshot_entries(&self, layer: &LayerId) -> PathBuf {
        self.snapshot(layer).join("entries")
    }

    pub(super) fn cache_mounts(&self) -> PathBuf {
        self.root.join("cache-mounts")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// What the store makes in its root: nothing else is ever removed there.
    pub(super) const OWN: [&'static str; 7] =
        ["lock", "format", "metadata", "blobs", "snapshots", "cache-mounts", "tmp"];
}
