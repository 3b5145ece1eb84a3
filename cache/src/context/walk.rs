//! The walk: directories and pieces of hashing work on one stack, served by a few threads.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use solver::pattern::PatternMatcher;

use super::assemble::assemble;
use super::error::ContextError;
use super::filter::Rules;
use super::follow::follow_paths;
use super::local::{Context, ThreadInit};
use super::queue::{Found, Queue};
use super::stat_cache::StatCache;
use super::worker::Worker;
use crate::tree::Trees;

/// Tasks that the first thread does before it starts others.
const ALONE: usize = 4;

/// What [`walk`] needs.
#[derive(Clone)]
pub struct WalkRequest<'a> {
    /// The directory, open for reading.
    pub dir: Arc<OwnedFd>,
    /// The ignore file's rules; an empty list leaves nothing out.
    pub ignored: &'a PatternMatcher,
    /// LLB's `local.includepattern`; with `follow_paths` also empty, everything is wanted.
    pub include_patterns: &'a [String],
    /// LLB's `local.followpaths`: what COPY sources name; links on the way are wanted too, and what they lead to.
    pub follow_paths: &'a [String],
    /// Digests of earlier walks.
    pub stat_cache: &'a dyn StatCache,
    /// Where the tree is stored.
    pub trees: Arc<Trees>,
    /// How many threads walk, at least 1.
    pub threads: usize,
    /// Called first in each thread that opens files, also later when they are copied.
    pub thread_init: Option<ThreadInit>,
    /// Ends the walk early when set.
    pub cancel: &'a AtomicBool,
}

impl std::fmt::Debug for WalkRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalkRequest")
            .field("include_patterns", &self.include_patterns)
            .field("follow_paths", &self.follow_paths)
            .finish_non_exhaustive()
    }
}

/// Walks a context, hashes what changed, and stores its content tree.
///
/// Blocking. With [`WalkRequest::thread_init`] all files are opened in threads of its own.
///
/// # Errors
/// When something that belongs to the context cannot be read, or the tree not be stored. What vanishes during the walk
/// is left out.
pub fn walk(request: &WalkRequest<'_>) -> Result<Context, ContextError> {
    let queue = Queue::new();
    let found = match request.thread_init {
        Some(_) => std::thread::scope(|scope| join(scope.spawn(|| request.search(&queue)))),
        None => request.search(&queue),
    }?;
    if let Some(failure) = queue.take_failure() {
        return Err(failure);
    }
    let (root, stats) = assemble(found, request)?;
    Ok(Context {
        trees: Arc::clone(&request.trees),
        root,
        stats,
        dir: Arc::clone(&request.dir),
        thread_init: request.thread_init.clone(),
    })
}

impl WalkRequest<'_> {
    /// Reads and hashes all that is wanted. The first tasks are done here: few contexts of a build are large enough for more
    /// threads than one.
    fn search(&self, queue: &Queue) -> Result<Vec<Found>, ContextError> {
        self.init_thread();
        let rules = self.rules()?;
        let mut first = Worker::new(queue, self, &rules);
        for _ in 0..ALONE {
            if !first.step() {
                return Ok(vec![first.into_found()]);
            }
        }
        Ok(std::thread::scope(|scope| {
            let work = || {
                self.init_thread();
                Worker::new(queue, self, &rules).run()
            };
            let others: Vec<_> = (1..self.threads).map(|_| scope.spawn(work)).collect();
            let own = first.run();
            std::iter::once(own).chain(others.into_iter().map(join)).collect()
        }))
    }

    fn init_thread(&self) {
        if let Some(init) = &self.thread_init {
            init();
        }
    }

    fn rules(&self) -> Result<Rules<'_>, ContextError> {
        let mut include = self.include_patterns.to_vec();
        if !self.follow_paths.is_empty()
            && let Some(followed) = follow_paths(self.dir.as_fd(), self.follow_paths)?
        {
            include.extend(followed);
        }
        Ok(Rules::new(self.ignored, &include)?)
    }
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
