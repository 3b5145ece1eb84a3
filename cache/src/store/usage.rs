//! What `du` shows: one record for each thing that a prune could remove.

use serde::{Deserialize, Serialize};

/// What kind of thing takes the space; the names are BuildKit's (`client/diskusage.go`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum UsageKind {
    /// Layers of steps and images.
    #[default]
    #[serde(rename = "regular")]
    Regular,
    /// What rbuild needs for itself.
    #[serde(rename = "internal")]
    Internal,
    /// Files of local contexts.
    #[serde(rename = "source.local")]
    LocalSource,
    /// Cache mounts.
    #[serde(rename = "exec.cachemount")]
    CacheMount,
    /// Frontend images.
    #[serde(rename = "frontend")]
    Frontend,
    /// Git checkouts.
    #[serde(rename = "source.git.checkout")]
    GitCheckout,
}

impl UsageKind {
    /// The name in the API and in filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Internal => "internal",
            Self::LocalSource => "source.local",
            Self::CacheMount => "exec.cachemount",
            Self::Frontend => "frontend",
            Self::GitCheckout => "source.git.checkout",
        }
    }
}

/// One line of `du`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// Layer id, blob digest or cache-mount name, as hex or `sha256:…`.
    pub id: String,
    /// What it is.
    pub kind: UsageKind,
    /// What it is for.
    pub description: String,
    /// Bytes on disk.
    pub size: u64,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last used, in milliseconds since 1970.
    pub last_used_ms: u64,
    /// How often it was used after it was made.
    pub usage_count: u64,
    /// Whether a running build or container holds it.
    pub in_use: bool,
    /// Whether a tagged image needs it.
    pub shared: bool,
    /// Whether it still changes: cache mounts do.
    pub mutable: bool,
}

/// When and how often something was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Use {
    pub(super) created_ms: u64,
    pub(super) last_ms: u64,
    pub(super) count: u64,
}

impl Use {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { created_ms: now_ms, last_ms: now_ms, count: 0 }
    }

    pub(super) fn again(&mut self, now_ms: u64) {
        self.last_ms = self.last_ms.max(now_ms);
        self.count += 1;
    }
}
