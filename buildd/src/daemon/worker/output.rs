//! From what a vertex wrote to a layer in the store.

use std::path::Path;

use cache::layer::{self, CommitRequest, CommittedLayer, OverlayMarks, RunWindow};
use cache::store::{LayerAbout, Lease, Store};
use solver::{ExecError, OutputRecord, redacted};

use super::mounts::Written;
use crate::daemon::chains::from_store;

/// Makes a layer of what a step wrote at one of its mounts. The overlay is unmounted and its processes are gone.
pub(super) fn commit(
    store: &Store,
    lease: &Lease,
    written: Written,
    window: RunWindow,
    description: &str,
) -> Result<OutputRecord, ExecError> {
    let Written { upper, base, copied, .. } = written;
    if let Some(copied) = copied {
        copied.move_changes(&upper).map_err(ExecError::failed)?;
    }
    let request = CommitRequest { upper: &upper, base: &base, window, stubs: &[], marks: marks() };
    let layer = layer::commit(&request).map_err(ExecError::failed)?;
    keep(store, lease, &layer, &upper, description)
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
