//! One walking thread.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::FileType;
use rustix::io::Errno;
use solver::pattern::Verdict;

use super::error::ContextError;
use super::filter::{Inherited, Rules};
use super::hash::FileHasher;
use super::listing::{self, Item, ItemKind, Listing};
use super::queue::{DirTask, FileResult, Found, HashTask, Queue, Task};
use super::stat_cache::{FileState, Known};
use super::walk::WalkRequest;

/// Files hashed as one piece of work, so that threads share the files of a large directory.
const FILES_PER_TASK: usize = 64;

/// A thread's state.
pub(super) struct Worker<'a> {
    queue: &'a Queue,
    request: &'a WalkRequest<'a>,
    rules: &'a Rules<'a>,
    hasher: FileHasher,
    found: Found,
}

impl<'a> Worker<'a> {
    pub(super) fn new(queue: &'a Queue, request: &'a WalkRequest<'a>, rules: &'a Rules<'a>) -> Self {
        Self { queue, request, rules, hasher: FileHasher::new(), found: Found::default() }
    }

    /// Works until nothing is left.
    pub(super) fn run(mut self) -> Found {
        while self.step() {}
        self.into_found()
    }

    /// Does one task; `false` when there are no more.
    pub(super) fn step(&mut self) -> bool {
        let Some(task) = self.queue.next() else { return false };
        let result = self.check_cancel().and_then(|()| match task {
            Task::Dir(task) => self.read_dir(task),
            Task::Hash(task) => self.hash(&task),
        });
        self.queue.done(result);
        true
    }

    pub(super) fn into_found(self) -> Found {
        self.found
    }

    fn check_cancel(&self) -> Result<(), ContextError> {
        if self.request.cancel.load(Ordering::Relaxed) { Err(ContextError::Cancelled) } else { Ok(()) }
    }

    fn read_dir(&mut self, task: DirTask) -> Result<(), ContextError> {
        let fail = |action, e: Errno| ContextError::io(action, &task.path, e);
        let dir: Arc<OwnedFd> = match &task.at {
            None => Arc::clone(&self.request.dir),
            Some((parent, name)) => match listing::open_dir(parent.as_fd(), name) {
                Ok(dir) => Arc::new(dir),
                // It vanished or became something else: as if the walk had come later.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                Err(Errno::ACCESS) if !task.wanted => return Ok(()),
                Err(e) => return Err(fail("open", e)),
            },
        };
        let key = listing::dir_key(&listing::stat_fd(dir.as_fd()).map_err(|e| fail("stat", e))?);
        let known = Known::new(self.request.stat_cache.get(key)?);
        let mut reading = Reading {
            dir: &dir,
            task: &task,
            known: &known,
            items: Vec::new(),
            work: Vec::new(),
            unknown: Vec::new(),
        };
        // The context itself was opened once for all walks: a descriptor of its own starts at the first name.
        let names = listing::open_dir(dir.as_fd(), c".").map_err(|e| fail("open", e))?;
        listing::read_names(names.as_fd(), &task.path, &mut |name, kind| {
            reading.visit(self.queue, self.rules, name, kind)
        })?;
        let Reading { items, mut work, mut unknown, .. } = reading;
        let listing = Listing { path: task.path.clone(), key, known, items };
        self.found.listings.push((task.listing, listing));
        let own = unknown.split_off(unknown.len() - unknown.len().min(FILES_PER_TASK));
        let hash_task =
            |files| HashTask { dir: Arc::clone(&dir), listing: task.listing, path: task.path.clone(), files };
        while !unknown.is_empty() {
            let files = unknown.split_off(unknown.len() - unknown.len().min(FILES_PER_TASK));
            work.push(Task::Hash(hash_task(files)));
        }
        self.queue.push(work);
        self.hash(&hash_task(own))
    }

    fn hash(&mut self, task: &HashTask) -> Result<(), ContextError> {
        for (item, name) in &task.files {
            self.check_cancel()?;
            let path = || task.path.child(name.to_bytes());
            let hashed = self.hasher.hash(task.dir.as_fd(), name, &path)?;
            self.found.hashed.push(FileResult { listing: task.listing, item: *item, hashed });
        }
        Ok(())
    }
}

/// A directory that is being read.
struct Reading<'a> {
    dir: &'a Arc<OwnedFd>,
    task: &'a DirTask,
    known: &'a Known,
    items: Vec<Item>,
    /// Its directories.
    work: Vec<Task>,
    /// Files to be hashed: indexes into `items`.
    unknown: Vec<(usize, CString)>,
}

impl Reading<'_> {
    fn visit(
        &mut self,
        queue: &Queue,
        rules: &Rules<'_>,
        name: &CStr,
        kind: FileType,
    ) -> Result<(), ContextError> {
        let path = || self.task.path.child(name.to_bytes());
        let mut stat = None;
        if kind == FileType::Unknown {
            stat = listing::stat_in(self.dir.as_fd(), name, &path)?;
        }
        let is_dir = match &stat {
            Some(stat) => FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory,
            None => kind == FileType::Directory,
        };
        let (verdict, below) = if rules.keep_all() {
            (Verdict::Include, Inherited::default())
        } else {
            rules.judge(path().as_bytes(), is_dir, &self.task.above)
        };
        if verdict == Verdict::Exclude {
            return Ok(());
        }
        let stat = match stat {
            Some(stat) => stat,
            None => match listing::stat_in(self.dir.as_fd(), name, &path)? {
                Some(stat) => stat,
                None => return Ok(()),
            },
        };
        if FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory {
            let wanted = verdict == Verdict::Include;
            let listing = queue.next_listing();
            let at = Some((Arc::clone(self.dir), name.to_owned()));
            self.items.push(listing::new_item(name, &stat, ItemKind::Dir { listing, wanted }));
            let task = DirTask { listing, at, path: path(), above: below, wanted };
            self.work.push(Task::Dir(task));
        } else if verdict == Verdict::Include {
            let mut item = listing::item(self.dir.as_fd(), name, &stat, &path)?;
            self.look_up(&mut item, name);
            self.items.push(item);
        }
        Ok(())
    }

    fn look_up(&mut self, item: &mut Item, name: &CStr) {
        let state: FileState = item.state;
        if let ItemKind::File { digest } = &mut item.kind {
            *digest = self.known.digest(&state);
            if digest.is_none() {
                self.unknown.push((self.items.len(), name.to_owned()));
            }
        }
    }
}
