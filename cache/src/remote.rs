//! Build caches in BuildKit's format (`cache/remotecache/v1` of its source): a graph of cache keys with the layers that each
//! of them gave, as it lies in an image's config, at a registry or in a directory.

mod chains;
mod config;
mod manifest;

pub use chains::{CacheResult, Chains, ItemId, Link};
pub use config::{CacheConfig, ConfigError};
pub use manifest::{CREATED, CacheManifest, INLINE_FIELD, MEDIA_TYPE, UNCOMPRESSED};
