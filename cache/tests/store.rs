//! The store: what it keeps, what a crash leaves, and what a prune takes.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are no test functions to clippy"
)]

#[path = "store/blobs.rs"]
mod blobs;
#[path = "store/cache_mounts.rs"]
mod cache_mounts;
#[path = "store/crash.rs"]
mod crash;
#[path = "store/full_disk.rs"]
mod full_disk;
#[path = "store/images.rs"]
mod images;
#[path = "store/layers.rs"]
mod layers;
#[path = "store/local_copies.rs"]
mod local_copies;
#[path = "store/open.rs"]
mod open;
#[path = "store/prune.rs"]
mod prune;
#[path = "store/reachability.rs"]
mod reachability;
#[path = "store/records.rs"]
mod records;
#[path = "store/recovery.rs"]
mod recovery;
#[path = "store/stat_cache.rs"]
mod stat_cache;
#[path = "store/support.rs"]
mod support;
#[path = "store/thin.rs"]
mod thin;
