//! Copies of clients' directories, which the next transfer starts from.
//!
//! A copy is kept as a private cache mount is: who takes one has it alone until its lease is dropped, another transfer of
//! the same directory at the same time gets another copy. So it is as it was left, also by a transfer that failed; after
//! a power cut it is there only if a checkpoint came after its last use.

use std::sync::Arc;

use solver::digest::Hasher;

use super::cache_mounts::acquire::acquire;
use super::cache_mounts::{CacheMountLease, CacheMountRequest, MountKey, Sharing};
use super::error::StoreError;
use super::shared::Shared;
use super::usage::UsageKind;

/// The copies of a store.
#[derive(Debug, Clone)]
pub struct LocalCopies {
    pub(super) shared: Arc<Shared>,
}

impl LocalCopies {
    /// Takes a copy that nobody uses of the directory known by `identity`, or an empty one. `description` is what `du` shows.
    pub async fn acquire(
        &self,
        identity: &[&str],
        description: String,
    ) -> Result<CacheMountLease, StoreError> {
        let mut hasher = Hasher::new("rbuild.local-copy.v1");
        for part in identity {
            hasher.str(part);
        }
        let key = MountKey(hasher.finish().hex());
        let request = CacheMountRequest {
            id: identity.join(":"),
            sharing: Sharing::Private,
            owner: None,
            base: None,
            step: self.shared.mounts.new_user(),
            clear_for: None,
            description,
        };
        acquire(&self.shared, UsageKind::LocalSource, key, request, None).await
    }
}
