//! From what a vertex wrote to a layer in the store.

use std::path::Path;

use cache::layer::{Base, CommitRequest, CommittedLayer, OverlayMarks, RunWindow, commit};
use cache::store::{LayerAbout, Lease, Store};
use solver::{ExecError, OutputRecord, redacted};

use crate::daemon::chains::from_store;

/// Commits an overlay's upper directory. The overlay is unmounted and its processes are gone.
pub(super) fn commit_upper(
    store: &Store,
    lease: &Lease,
    upper: &Path,
    base: &Base,
    window: RunWindow,
    description: &str,
) -> Result<OutputRecord, ExecError> {
    let request = CommitRequest { upper, base, window, stubs: &[], marks: marks() };
    let layer = commit(&request).map_err(ExecError::failed)?;
    keep(store, lease, &layer, upper, description)
}

/// In a user namespace overlayfs keeps its marks in `user.overlay.*` (the option `userxattr`).
fn marks() -> OverlayMarks {
    match runner::overlay::in_user_namespace() {
        true => OverlayMarks::User,
        false => OverlayMarks::Trusted,
    }
}

/// Moves a finished layer into the store.
pub(super) fn keep(
    store: &Store,
    lease: &Lease,
    layer: &CommittedLayer,
    dir: &Path,
    description: &str,
) -> Result<OutputRecord, ExecError> {
    let about = LayerAbout { description: redacted(description).into_owned(), ..LayerAbout::default() };
    store.layers().insert(lease, layer, about, dir).map_err(from_store)?;
    Ok(OutputRecord { content: *layer.root.digest(), layer: Some(layer.id) })
}
