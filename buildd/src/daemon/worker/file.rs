//! File ops: done in user space on layer directories, without a mount.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use cache::context::DirKey;
use cache::fileop::{ActionError, CopyProgress, FileInput, FileOpEnv, FileOpError, execute};
use cache::layer::UnpackLimits;
use solver::digest::Hasher;
use solver::op::FileOp;
use solver::{Digest, ExecError, Job, OutputRecord, step_digest};

use super::{LocalWorker, output};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;

/// What an archive in a context or an image may unpack to.
pub(in crate::daemon) const UNPACK_LIMITS: UnpackLimits =
    UnpackLimits { bytes: 1 << 40, entries: 20_000_000 };

/// Tells blocking work that nobody waits for it any more.
pub(in crate::daemon) struct SetOnDrop(pub(in crate::daemon) Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl LocalWorker {
    pub(super) async fn file(&self, op: &FileOp, job: &Job) -> Result<Vec<(u32, OutputRecord)>, ExecError> {
        let mut inputs = Vec::with_capacity(job.inputs.len());
        for input in &job.inputs {
            inputs.push(match input.local {
                Some(local) => FileInput::Context(self.locals.get(local).ok_or_else(gone)?),
                None => FileInput::Chain(self.chains.base(input)?),
            });
        }
        let step = step_of(op, job, &inputs);
        let (op, store, lease) = (op.clone(), self.chains.store.clone(), self.leases.of(&job.cx.build));
        let trees = self.chains.trees.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_on_drop = SetOnDrop(stop.clone());
        let name = job.vertex.meta.custom_name().unwrap_or_default().to_owned();
        let work = blocking(move || {
            let staging = store.layers().staging().map_err(from_store)?;
            let backing = match &step {
                Some(step) => store.layers().backing_for(&lease, step).map_err(from_store)?,
                None => None,
            };
            let env = FileOpEnv {
                dir: staging.path(),
                trees,
                backing,
                threads: cache::cores(),
                limits: UNPACK_LIMITS,
                now: SystemTime::now(),
                cancel: &stop,
                progress: &CopyProgress::default(),
            };
            let outputs: BTreeMap<usize, _> = execute(&op, &inputs, &env).map_err(failed)?;
            let mut kept = Vec::with_capacity(outputs.len());
            for (i, made) in outputs {
                kept.push((i as u32, output::keep(&store, &lease, &made.layer, &made.dir, &name)?));
                if let Some(step) = &step {
                    store.layers().note_last(step, &made.layer.id).map_err(from_store)?;
                }
            }
            Ok(kept)
        });
        until_cancelled(job, work).await
    }
}

/// Lets go of work that nobody waits for any more; a flag tells it so.
pub(super) async fn until_cancelled<T>(
    job: &Job,
    work: impl Future<Output = Result<T, ExecError>>,
) -> Result<T, ExecError> {
    tokio::select! {
        done = work => done,
        () = job.cx.cancel.cancelled() => Err(ExecError::Canceled),
    }
}

/// Names a step that copies from clients' directories, for what it gave before: what it does, from which directories.
/// Other steps and those with several results have none.
fn step_of(op: &FileOp, job: &Job, inputs: &[FileInput]) -> Option<Digest> {
    if op.actions.iter().filter(|action| action.output.is_some()).count() != 1 {
        return None;
    }
    let mut hasher = Hasher::new("rbuild.step.v1");
    hasher.digest(&step_digest(&job.vertex));
    let mut copies = false;
    for input in inputs {
        if let FileInput::Context(context) = input {
            let DirKey { dev, ino } = context.key().ok()?;
            hasher.u64(dev).u64(ino);
            copies = true;
        }
    }
    copies.then(|| hasher.finish())
}

/// The build that walked the directory has ended; who joined it walks its own.
fn gone() -> ExecError {
    ExecError::Changed { path: "the build context".to_owned() }
}

fn failed(e: FileOpError) -> ExecError {
    match e {
        FileOpError::Action { source: ActionError::ContextChanged(path), .. } => {
            ExecError::Changed { path: format!("{path}") }
        }
        FileOpError::Action { source: ActionError::Cancelled, .. } => ExecError::Canceled,
        other => ExecError::failed(other),
    }
}
