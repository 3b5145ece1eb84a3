//! The stack of work that the walking threads share.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::error::ContextError;
use super::filter::Inherited;
use super::hash::Hashed;
use super::listing::Listing;
use crate::tree::TreePath;

/// A piece of work.
#[derive(Debug)]
pub(super) enum Task {
    /// Read a directory.
    Dir(DirTask),
    /// Hash files of a directory.
    Hash(HashTask),
}

#[derive(Debug)]
pub(super) struct DirTask {
    /// The index its listing gets.
    pub(super) listing: usize,
    /// Its open parent and its name there; `None` for the context itself.
    pub(super) at: Option<(Arc<OwnedFd>, CString)>,
    pub(super) path: TreePath,
    pub(super) above: Inherited,
    /// Whether it belongs to the context even when nothing in it does.
    pub(super) wanted: bool,
}

#[derive(Debug)]
pub(super) struct HashTask {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) listing: usize,
    pub(super) path: TreePath,
    /// Indexes into the listing's items.
    pub(super) files: Vec<(usize, CString)>,
}

/// What one thread found, in no order.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// With their indexes.
    pub(super) listings: Vec<(usize, Listing)>,
    pub(super) hashed: Vec<FileResult>,
}

/// The digest of one file.
#[derive(Debug)]
pub(super) struct FileResult {
    pub(super) listing: usize,
    pub(super) item: usize,
    /// `None`: it vanished.
    pub(super) hashed: Option<Hashed>,
}

/// A stack, so that descriptors of parents are closed soon; ends when all threads wait for work.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    tasks: Vec<Task>,
    /// Threads at work, which may push more.
    busy: usize,
    listings: usize,
    failure: Option<ContextError>,
}

impl Queue {
    /// A queue with the context itself as its first task.
    pub(super) fn new() -> Self {
        let root = DirTask {
            listing: 0,
            at: None,
            path: TreePath::root(),
            above: Inherited::default(),
            wanted: true,
        };
        let state = State { tasks: vec![Task::Dir(root)], busy: 0, listings: 1, failure: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for work; `None` when none can come any more. Each task is followed by [`Self::done`].
    pub(super) fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(task) = state.tasks.pop() {
                state.busy += 1;
                return Some(task);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Adds work; tasks at the end are done first.
    pub(super) fn push(&self, tasks: Vec<Task>) {
        if tasks.is_empty() {
            return;
        }
        self.lock().tasks.extend(tasks);
        self.changed.notify_all();
    }

    /// Ends a task; the first failure ends the walk.
    pub(super) fn done(&self, result: Result<(), ContextError>) {
        let mut state = self.lock();
        state.busy -= 1;
        if let Err(failure) = result {
            state.failure.get_or_insert(failure);
        }
        if state.failure.is_some() || state.busy == 0 && state.tasks.is_empty() {
            self.changed.notify_all();
        }
    }

    /// The index of the next listing; always larger than that of the directory it is found in.
    pub(super) fn next_listing(&self) -> usize {
        let mut state = self.lock();
        state.listings += 1;
        state.listings - 1
    }

    pub(super) fn take_failure(&self) -> Option<ContextError> {
        self.lock().failure.take()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
