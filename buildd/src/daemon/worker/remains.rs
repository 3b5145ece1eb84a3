//! What is left of a RUN that failed: what it wrote at its mounts, made layers of when somebody looks.

use std::sync::{Mutex, PoisonError};

use cache::layer::RunWindow;
use cache::store::Staging;
use solver::{ExecError, LayerId, Output, Remains};
use tokio::sync::OnceCell;

use super::mounts::Written;
use super::{LocalWorker, output};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;

/// The writable mounts of a step that failed.
#[derive(Debug)]
pub(in crate::daemon) struct StepRemains {
    mounts: Vec<Left>,
    window: RunWindow,
    /// For the layers' descriptions.
    name: String,
    /// Holds the files of what nobody looked at.
    _staging: Staging,
}

/// What is left at one mount.
#[derive(Debug)]
struct Left {
    mount: usize,
    below: Vec<LayerId>,
    /// Taken by the first who looks.
    written: Mutex<Option<Written>>,
    layers: OnceCell<Output>,
}

impl StepRemains {
    /// What was `written` below `staging` during `window`.
    pub(super) fn new(staging: Staging, written: Vec<Written>, window: RunWindow, name: String) -> Self {
        let left = |written: Written| Left {
            mount: written.mount,
            below: written.below.clone(),
            written: Mutex::new(Some(written)),
            layers: OnceCell::new(),
        };
        Self { mounts: written.into_iter().map(left).collect(), window, name, _staging: staging }
    }

    /// Whether anything could be written at a mount.
    pub(in crate::daemon) fn has(&self, mount: usize) -> bool {
        self.mounts.iter().any(|left| left.mount == mount)
    }
}

impl LocalWorker {
    /// What a step that failed left at one of its mounts, held for a build.
    ///
    /// # Errors
    /// Layers below that are gone; a directory that cannot be read.
    pub(in crate::daemon) async fn salvage(
        &self,
        remains: &Remains,
        mount: usize,
        build: &str,
    ) -> Result<Output, ExecError> {
        let step = remains.get::<StepRemains>().ok_or_else(|| ExecError::failed(NothingLeft))?;
        let left = step.mounts.iter().find(|left| left.mount == mount);
        let left = left.ok_or_else(|| ExecError::failed(NothingLeft))?;
        let lease = self.leases.of(build);
        let made = left.layers.get_or_try_init(|| async {
            let written = left.written.lock().unwrap_or_else(PoisonError::into_inner).take();
            let written = written.ok_or_else(|| ExecError::failed(NothingLeft))?;
            let (store, lease, window) = (self.chains.store.clone(), lease.clone(), step.window);
            let name = step.name.clone();
            let made = blocking(move || output::commit(&store, &lease, written, window, &name)).await?;
            let chain = left.below.iter().copied().chain(made.layer).collect();
            Ok::<_, ExecError>(Output { chain, content: Some(made.content), local: None })
        });
        let made = made.await?.clone();
        for layer in made.chain.iter() {
            if !self.chains.store.layers().hold_present(&lease, layer).map_err(from_store)? {
                return Err(ExecError::failed(NothingLeft));
            }
        }
        Ok(made)
    }
}

/// Somebody looks at a mount of a failed step where nothing is.
#[derive(Debug, thiserror::Error)]
#[error("nothing is left of what the step wrote there")]
struct NothingLeft;
