//! Copying the bytes of many files with a few threads.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use super::env::FileOpEnv;
use super::error::ActionError;
use super::source::{Source, check_digest};
use super::state::Target;
use crate::context::Context;
use crate::layer::Meta;
use crate::tree::{FileDigest, TreePath};

/// Open files that wait for a thread to copy them.
const OPEN_AHEAD: usize = 32;
/// Fewer files than this are not worth other threads.
const WORTH_THREADS: usize = 8;
/// Nor are files of fewer bytes together.
const WORTH_BYTES: u64 = 4 << 20;

/// A regular file to be copied.
#[derive(Debug)]
pub(super) struct CopyJob {
    pub(super) from: TreePath,
    pub(super) to: TreePath,
    pub(super) meta: Meta,
    pub(super) size: u64,
    pub(super) content: FileDigest,
    /// `meta.mtime` is to be that of the file on disk.
    pub(super) disk_time: bool,
}

/// Copies all of `jobs`, whose targets differ; ends with the first failure.
pub(super) fn run(
    jobs: &[CopyJob],
    source: &Source<'_>,
    target: &Target,
    env: &FileOpEnv<'_>,
) -> Result<(), ActionError> {
    let copier = Copier { source, target, env };
    let bytes: u64 = jobs.iter().map(|job| job.size).sum();
    let few = jobs.len() < 2 || jobs.len() < WORTH_THREADS && bytes < WORTH_BYTES;
    match source.guarded_context() {
        Some(context) => copier.run_guarded(jobs, context),
        None if few || env.threads < 2 => jobs.iter().try_for_each(|job| copier.copy(job, None)),
        None => copier.run_parallel(jobs),
    }
}

/// Opens a file of a source, in a thread of its own where the source wants that.
pub(super) fn open_guarded(source: &Source<'_>, path: &TreePath) -> Result<File, ActionError> {
    let Some(context) = source.guarded_context() else { return source.open(path) };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            context.init_thread();
            source.open(path)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

struct Copier<'a> {
    source: &'a Source<'a>,
    target: &'a Target,
    env: &'a FileOpEnv<'a>,
}

impl Copier<'_> {
    fn run_parallel(&self, jobs: &[CopyJob]) -> Result<(), ActionError> {
        let next = AtomicUsize::new(0);
        let failure = FirstFailure::default();
        std::thread::scope(|scope| {
            for _ in 0..self.env.threads.min(jobs.len()) {
                scope.spawn(|| {
                    while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if !failure.note(self.copy(job, None)) {
                            break;
                        }
                    }
                });
            }
        });
        failure.into_result()
    }

    /// One thread with the client's identity opens, the others write with the daemon's.
    fn run_guarded(&self, jobs: &[CopyJob], context: &Context) -> Result<(), ActionError> {
        let (opened, files) = mpsc::sync_channel(OPEN_AHEAD);
        let files = Mutex::new(files);
        let failure = FirstFailure::default();
        std::thread::scope(|scope| {
            let (failure, files) = (&failure, &files);
            scope.spawn(move || {
                context.init_thread();
                for job in jobs {
                    let file = if job.is_empty() { None } else { Some(self.source.open(&job.from)) };
                    if failure.happened() || opened.send((job, file)).is_err() {
                        break;
                    }
                }
            });
            for _ in 0..self.env.threads.clamp(1, jobs.len().max(1)) {
                scope.spawn(move || {
                    loop {
                        let file = files.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok((job, file)) = file else { break };
                        // After a failure the channel is drained, so that the opening thread never waits.
                        if !failure.happened() {
                            failure.note(file.transpose().and_then(|file| self.copy(job, file)));
                        }
                    }
                });
            }
        });
        failure.into_result()
    }

    fn copy(&self, job: &CopyJob, file: Option<File>) -> Result<(), ActionError> {
        if self.env.cancel.load(Ordering::Relaxed) {
            return Err(ActionError::Cancelled);
        }
        if job.is_empty() {
            self.target.layer.write_file(&job.to, &job.meta, b"")?;
            self.env.progress.add(0);
            return Ok(());
        }
        let file = match file {
            Some(file) => file,
            None => self.source.open(&job.from)?,
        };
        let digest = if job.disk_time {
            let on_disk =
                file.metadata().map_err(|e| ActionError::Source { path: job.from.clone(), source: e })?;
            let mtime = on_disk.mtime().saturating_mul(1_000_000_000).saturating_add(on_disk.mtime_nsec());
            self.target.layer.copy_file(&job.to, &Meta { mtime, ..job.meta.clone() }, &file)?
        } else {
            self.target.layer.copy_file(&job.to, &job.meta, &file)?
        };
        check_digest(self.source, &job.from, &job.content, &digest)?;
        self.env.progress.add(job.size);
        Ok(())
    }
}

impl CopyJob {
    /// Nothing to read: also what stands for a socket of a context, which cannot be opened.
    fn is_empty(&self) -> bool {
        self.size == 0 && !self.disk_time
    }
}

#[derive(Default)]
struct FirstFailure {
    happened: AtomicBool,
    failure: Mutex<Option<ActionError>>,
}

impl FirstFailure {
    /// Keeps the first failure; false when there is one.
    fn note(&self, result: Result<(), ActionError>) -> bool {
        if let Err(failure) = result {
            self.happened.store(true, Ordering::Relaxed);
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
        !self.happened()
    }

    fn happened(&self) -> bool {
        self.happened.load(Ordering::Relaxed)
    }

    fn into_result(self) -> Result<(), ActionError> {
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}
