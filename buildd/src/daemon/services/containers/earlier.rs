//! Containers that an earlier daemon over the same root started.

use std::path::Path;
use std::sync::Arc;

use super::alive::Alive;
use super::files::{Files, attend, held, release};
use crate::daemon::builds::Builds;
use crate::daemon::parts::Parts;

/// Takes up those that still run, and cleans up after the others.
pub(crate) fn take_up(parts: &Parts, builds: &Arc<Builds>) {
    let dir = parts.store.root().join("containers");
    for entry in fs_err::read_dir(&dir).into_iter().flatten().flatten() {
        if let Ok(id) = entry.file_name().into_string() {
            take_up_one(parts, builds, &dir, &id);
        }
    }
    // What was leased before its directory was made.
    for id in held(&parts.store).into_iter().filter(|id| !dir.join(id).exists()) {
        release(&parts.store, &id);
    }
}

fn take_up_one(parts: &Parts, builds: &Arc<Builds>, dir: &Path, id: &str) {
    let files = Files::of(&parts.store, id);
    let Some(alive) = Alive::find(&dir.join(id)) else { return };
    tracing::info!(container = id, "goes on from an earlier daemon");
    let name = files.name().unwrap_or_else(|| id.to_owned());
    let listed = builds.begin(&super::reference(&name));
    tokio::spawn(async move {
        let cancel = listed.as_ref().map(|l| l.cancel.clone()).unwrap_or_default();
        if let Some(listed) = &listed {
            listed.rest();
        }
        attend(alive, files, &cancel).await;
    });
}
