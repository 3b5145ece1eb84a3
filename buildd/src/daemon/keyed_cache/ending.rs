//! What is left to write at the end of a build.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use solver::{ExecError, Key, Made, Status, VertexContext};

use super::upload::{Target, UploadError, lock};
use super::{KeyedCaches, KeyedTarget};
use crate::daemon::progress::Step;
use crate::progress::plural;

/// How often it is shown how much has left.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

/// A task came to an unexpected end.
#[derive(Debug, thiserror::Error)]
#[error("internal error: {0}")]
struct Lost(String);

/// A cache that is written, and the step that shows it.
struct Ending {
    target: Arc<Target>,
    step: Step,
    /// Its first failure.
    failed: Option<UploadError>,
}

impl KeyedCaches {
    /// Writes `rest`, what else is known of the build, and waits for all that is under way, the first time that it is called. A failure
    /// counts where it is not to be ignored. So many results are of `foreign` caches, whose layers keyed caches have no names for.
    ///
    /// # Errors
    /// A store that does not take it.
    pub(in crate::daemon) async fn finish(
        self: &Arc<Self>,
        rest: &[Made],
        foreign: usize,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        if self.uploads.finished.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let unknown = |target: &Target, key: &Key| {
            let (store, scope) = (target.wanted.place.id(), target.wanted.scope.clone());
            !self.lock().there.contains(&(store, scope, *key))
        };
        rest.iter().for_each(|made| self.begin(made, unknown, cx));
        let targets = lock(&self.uploads.targets).clone();
        let ending = |target: Arc<Target>| {
            let step = self.teller.step(&format!("exporting cache to {}", target.wanted.name()));
            Ending { target, step, failed: None }
        };
        let mut endings: Vec<Ending> = targets.iter().cloned().map(ending).collect();
        self.written(&mut endings).await;
        let wanted: Vec<&KeyedTarget> = targets.iter().map(|target| &target.wanted).collect();
        let mounts = self.write_mounts(&wanted, cx).await;
        for (ending, mounts) in endings.iter_mut().zip(mounts) {
            if let Err(error) = mounts {
                ending.failed.get_or_insert(UploadError::Here(error));
            }
        }
        let mut result = Ok(());
        for ending in endings {
            result = result.and(self.ended(ending, foreign, cx).await);
        }
        result
    }

    /// Waits until nothing is under way any more, and shows how much has left.
    async fn written(&self, endings: &mut [Ending]) {
        let mut writes = std::mem::take(&mut *lock(&self.uploads.writes));
        let (began, mut clock) = (SystemTime::now(), tokio::time::interval(SHOWN_EVERY));
        loop {
            let ended = tokio::select! {
                ended = writes.join_next() => ended,
                _ = clock.tick() => {
                    endings.iter().for_each(|ending| ending.show(began, false));
                    continue;
                }
            };
            match ended {
                None => break,
                Some(Ok((_, Ok(())))) => {}
                Some(Ok((at, Err(error)))) => drop(endings[at].failed.get_or_insert(error)),
                Some(Err(error)) => endings.iter_mut().for_each(|ending| {
                    let lost = || UploadError::Here(ExecError::failed(Lost(error.to_string())));
                    ending.failed.get_or_insert_with(lost);
                }),
            }
        }
        endings.iter().for_each(|ending| ending.show(began, true));
    }

    /// Tells how a cache was written, and removes what has expired there; the failure where that counts.
    async fn ended(
        &self,
        Ending { target, step, failed }: Ending,
        foreign: usize,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let ended = match failed {
            Some(UploadError::Here(error)) => Err(error),
            Some(error) => Err(ExecError::failed(error)),
            None => Ok(()),
        };
        if ended.is_ok() {
            if foreign > 0 {
                step.warn(&[told_foreign(foreign)]);
            }
            step.part(&target.tally.told(), async { Ok::<_, ExecError>(()) }).await?;
            if let Err(error) = self.expire(&target.wanted, &step, cx).await {
                // What was written is there; somebody who may will remove what is old.
                let error = solver::redacted(&crate::causes::causes(&error)).into_owned();
                tracing::warn!(build = cx.build, "cannot remove what has expired: {error}");
                if target.wanted.expire.is_some() {
                    step.warn(&[format!("cannot remove what has expired: {error}")]);
                }
            }
        }
        match step.end(ended) {
            Err(error) if target.wanted.ignore_error && !cx.cancel.is_cancelled() => {
                tracing::warn!(build = cx.build, "cannot write a cache: {error}");
                Ok(())
            }
            ended => ended,
        }
    }
}

impl Ending {
    /// Shows how much has left.
    fn show(&self, started: SystemTime, ended: bool) {
        let (current, total) = self.target.traffic.told();
        if total > 0 {
            let (id, completed) = ("uploading".to_owned(), ended.then(SystemTime::now));
            self.step.progress().status(Status { id, current, total, started, completed });
        }
    }
}

/// What is told of results that other caches had.
fn told_foreign(count: usize) -> String {
    let results = plural(count as u64, "result");
    format!(
        "{results} of caches of other types cannot be written here: without those caches the steps run, and are written then"
    )
}
