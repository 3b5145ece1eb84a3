//! What can go wrong with the store.

use std::path::{Path, PathBuf};

use solver::{Digest, LayerId};

/// A failure of the store, with the object it concerns.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process works on the root.
    #[error("`{}` is in use by {holder}", .root.display())]
    Locked {
        /// The store's root.
        root: PathBuf,
        /// Who holds the lock, as it wrote itself down.
        holder: String,
    },
    /// The root was written by a newer rbuild.
    #[error("`{}` has format {found}, newer than {known}: use a newer rbuild or another root", .root.display())]
    TooNew {
        /// The store's root.
        root: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// The root holds files that no store wrote.
    #[error("`{}` is not empty and no rbuild root", .root.display())]
    Foreign {
        /// The directory.
        root: PathBuf,
    },
    /// A file or directory of the root failed.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was tried: `create`, `read`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The metadata database failed.
    #[error("cannot {action} table `{table}`")]
    Database {
        /// What was tried: `open`, `read`, `write`.
        action: &'static str,
        /// The table (column family).
        table: &'static str,
        /// Why it failed.
        #[source]
        source: rocksdb::Error,
    },
    /// A blob is not there (any more): fetch it again.
    #[error("blob `{0}` is missing")]
    BlobMissing(Digest),
    /// A blob's bytes are not what its digest says; it has been dropped: fetch it again.
    #[error("blob `{digest}` is damaged: its bytes have the digest `{found}`")]
    BlobDamaged {
        /// The digest it is named by.
        digest: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// Bytes were written that are not what was promised.
    #[error("wrote `{found}` ({found_size} bytes), expected `{expected}`")]
    BlobMismatch {
        /// The digest promised.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
        /// How many bytes came.
        found_size: u64,
    },
    /// A blob is too large for the use that was asked for.
    #[error("blob `{digest}` has {size} bytes, more than the {limit} that may be read at once")]
    BlobTooLarge {
        /// The blob.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A layer is not there (any more).
    #[error("`{0}` is missing")]
    LayerMissing(LayerId),
    /// A layer's files are not what was stored.
    #[error("`{layer}` is damaged at `{}`", .path.display())]
    LayerDamaged {
        /// The layer.
        layer: LayerId,
        /// Where it differs, relative to the layer.
        path: PathBuf,
    },
    /// A content tree cannot be read.
    #[error(transparent)]
    Tree(#[from] crate::tree::TreeError),
    /// A filter of `du` or `prune` does not parse.
    #[error(transparent)]
    Filter(#[from] super::filter::InvalidFilter),
    /// The operation was cancelled; what was done until then stays done.
    #[error("{0} was interrupted")]
    Interrupted(&'static str),
}

impl StoreError {
    /// For `map_err` on file operations.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether the disk (or the quota) is full.
    pub fn is_disk_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Io { source, .. } => matches!(source.kind(), StorageFull | QuotaExceeded),
            // RocksDB gives the text of strerror only.
            Self::Database { source, .. } => {
                let text = source.as_ref();
                text.contains("No space left")
                    || text.contains("quota exceeded")
                    || text.contains("MaxAllowedSpace")
            }
            _ => false,
        }
    }
}
