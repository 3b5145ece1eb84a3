//! Commands in sandboxes, for async callers.

use std::sync::{Arc, Mutex, PoisonError};

use runner::{Exit, Launcher, LauncherConfig, Monitored, RunnerError, SandboxHandle, SandboxSpec, Stdio};
use tokio_util::sync::CancellationToken;

use super::blocking::blocking;
pub(super) use crate::container::output_pipe;

/// The launcher, replaced when it dies.
#[derive(Debug)]
pub(super) struct Sandboxes {
    config: LauncherConfig,
    launcher: Mutex<Option<Arc<Launcher>>>,
}

impl Sandboxes {
    /// Takes over a launcher that was started before there were threads.
    pub(super) fn new(config: LauncherConfig, launcher: Launcher) -> Self {
        Self { config, launcher: Mutex::new(Some(Arc::new(launcher))) }
    }

    /// Starts a sandbox.
    ///
    /// # Errors
    /// When the launcher cannot be reached even after it was started anew, or the spec makes no sense.
    pub(super) fn spawn(
        &self,
        spec: &SandboxSpec,
        stdio: impl Fn() -> std::io::Result<Stdio>,
    ) -> Result<SandboxHandle, SpawnError> {
        self.with_launcher(|launcher| Ok(launcher.spawn(spec, stdio()?)?))
    }

    /// Starts a sandbox that outlives the daemon.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub(super) fn spawn_monitored(
        &self,
        spec: &SandboxSpec,
        stdio: &Stdio,
        monitored: &Monitored,
    ) -> Result<(), SpawnError> {
        self.with_launcher(|launcher| Ok(launcher.spawn_monitored(spec, stdio.try_clone()?, monitored)?))
    }

    fn with_launcher<T>(&self, run: impl Fn(&Launcher) -> Result<T, SpawnError>) -> Result<T, SpawnError> {
        match run(&*self.current()?) {
            Err(SpawnError::Runner(RunnerError::LauncherGone)) => {
                tracing::warn!("the launcher died; another is started");
                *self.lock() = None;
                run(&*self.current()?)
            }
            other => other,
        }
    }

    /// Kills all sandboxes and ends the launcher. Blocks until they are gone.
    pub(super) fn shutdown(&self) {
        drop(self.lock().take());
    }

    fn current(&self) -> Result<Arc<Launcher>, RunnerError> {
        let mut slot = self.lock();
        if let Some(launcher) = &*slot {
            return Ok(launcher.clone());
        }
        Ok(slot.insert(Arc::new(Launcher::start(self.config.clone())?)).clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Launcher>>> {
        self.launcher.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sandbox could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    /// Its descriptors could not be made.
    #[error("cannot make the standard streams of a sandbox")]
    Streams(#[from] std::io::Error),
    /// The runner refused.
    #[error(transparent)]
    Runner(#[from] RunnerError),
}

/// Waits for the end; a cancelled sandbox is killed first.
///
/// # Errors
/// When the sandbox could not be set up, or its keeper died.
pub(super) async fn wait(
    handle: Arc<SandboxHandle>,
    cancel: &CancellationToken,
) -> Result<Exit, RunnerError> {
    let waiting = handle.clone();
    let ended = blocking(move || waiting.wait());
    tokio::pin!(ended);
    tokio::select! {
        outcome = &mut ended => return outcome,
        () = cancel.cancelled() => handle.kill(),
    }
    ended.await
}
