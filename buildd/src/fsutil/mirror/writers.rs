//! Threads that write files, each its own ones.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use cache::context::{DirKey, FileRecorder, Recorded};
use proto::fsutil::Stat;
use rustix::fs::FileType;

use super::disk::Disk;
use crate::fsutil::TransferError;
use crate::fsutil::receive::Data;

/// Threads, at most: the disk's file system lets few work in one directory.
const MAX_THREADS: usize = 4;

/// What was handed over, but not begun: so often a thread may be behind.
const BACKLOG: usize = 4;

/// A file to be written.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) stat: Stat,
    /// Its directory.
    pub(super) dir: DirKey,
    /// Whether something has its name, which is no directory.
    pub(super) replaces: bool,
}

/// The threads, as far as they were needed.
#[derive(Debug)]
pub(super) struct Writers {
    queues: Vec<Queue>,
    shared: Shared,
}

/// What all threads have.
#[derive(Debug, Clone)]
struct Shared {
    disk: Disk,
    stop: Arc<AtomicBool>,
    _owner: Arc<dyn std::any::Any + Send + Sync>,
}

#[derive(Debug, Default)]
struct Queue {
    work: Vec<Work>,
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    work: SyncSender<Vec<Work>>,
    writer: JoinHandle<Result<Vec<Recorded>, TransferError>>,
}

#[derive(Debug)]
enum Work {
    Begin(u32, NewFile),
    Data(u32, Data),
    End(u32),
}

impl Writers {
    pub(super) fn new(disk: Disk, owner: Arc<dyn std::any::Any + Send + Sync>) -> Self {
        let shared = Shared { disk, stop: Arc::default(), _owner: owner };
        let threads = cache::cores().clamp(1, MAX_THREADS);
        Self { queues: (0..threads).map(|_| Queue::default()).collect(), shared }
    }

    /// Adds to a file, which begins with its first data.
    pub(super) fn data(&mut self, id: u32, new: Option<NewFile>, data: Data) {
        self.begin(id, new);
        self.add(id, Work::Data(id, data));
    }

    /// Completes a file.
    pub(super) fn end(&mut self, id: u32, new: Option<NewFile>) {
        self.begin(id, new);
        self.add(id, Work::End(id));
    }

    /// Lets the threads have what there is: it takes room that more data may need.
    ///
    /// # Errors
    /// What a thread met meanwhile.
    pub(super) fn hand_over(&mut self) -> Result<(), TransferError> {
        self.queues.iter_mut().try_for_each(|queue| queue.flush(&self.shared))
    }

    /// Waits until all is written.
    pub(super) fn finish(&mut self) -> Result<Vec<Recorded>, TransferError> {
        self.hand_over()?;
        let mut written = Vec::new();
        for queue in &mut self.queues {
            if let Some(thread) = queue.thread.take() {
                written.extend(thread.join()?);
            }
        }
        Ok(written)
    }

    fn begin(&mut self, id: u32, new: Option<NewFile>) {
        if let Some(new) = new {
            self.add(id, Work::Begin(id, new));
        }
    }

    fn add(&mut self, id: u32, work: Work) {
        let index = id as usize % self.queues.len();
        self.queues[index].work.push(work);
    }
}

impl Drop for Writers {
    /// Nothing may be written any more once the mirror is gone.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.queues.iter_mut().filter_map(|queue| queue.thread.take()) {
            // Whoever drops it has the error that counts.
            let _ = thread.join();
        }
    }
}

impl Queue {
    fn flush(&mut self, shared: &Shared) -> Result<(), TransferError> {
        let work = std::mem::take(&mut self.work);
        if work.is_empty() {
            return Ok(());
        }
        let thread = self.thread.get_or_insert_with(|| Thread::start(shared.clone()));
        match thread.work.send(work) {
            Ok(()) => Ok(()),
            Err(_) => match self.thread.take().map(Thread::join) {
                Some(Err(error)) => Err(error),
                _ => Err(TransferError::Cancelled),
            },
        }
    }
}

impl Thread {
    fn start(shared: Shared) -> Self {
        let (work, queue): (_, Receiver<Vec<Work>>) = sync_channel(BACKLOG);
        Self { work, writer: std::thread::spawn(move || Writer::new(shared).run(queue)) }
    }

    fn join(self) -> Result<Vec<Recorded>, TransferError> {
        drop(self.work);
        self.writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// One thread's files.
struct Writer {
    shared: Shared,
    files: HashMap<u32, Writing>,
    written: Vec<Recorded>,
}

struct Writing {
    new: NewFile,
    file: File,
    recorder: FileRecorder,
}

impl Writer {
    fn new(shared: Shared) -> Self {
        Self { shared, files: HashMap::new(), written: Vec::new() }
    }

    fn run(mut self, queue: impl IntoIterator<Item = Vec<Work>>) -> Result<Vec<Recorded>, TransferError> {
        for work in queue.into_iter().flatten() {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(TransferError::Cancelled);
            }
            match work {
                Work::Begin(id, new) => self.begin(id, new)?,
                Work::Data(id, data) => self.data(id, &data)?,
                Work::End(id) => self.end(id)?,
            }
        }
        Ok(self.written)
    }

    fn begin(&mut self, id: u32, new: NewFile) -> Result<(), TransferError> {
        let disk = &self.shared.disk;
        if new.replaces {
            disk.remove(new.stat.path.as_bytes(), FileType::RegularFile)?;
        }
        let file = disk.create(&new.stat.path)?;
        self.files.insert(id, Writing { new, file, recorder: FileRecorder::default() });
        Ok(())
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), TransferError> {
        let writing = self.files.get_mut(&id).ok_or(TransferError::Id(id))?;
        writing.recorder.update(data);
        writing.file.write_all(data).map_err(|e| TransferError::io(&writing.new.stat.path, e))
    }

    fn end(&mut self, id: u32) -> Result<(), TransferError> {
        let Writing { new, file, recorder } = self.files.remove(&id).ok_or(TransferError::Id(id))?;
        self.shared.disk.complete(&file, &new.stat)?;
        let recorded = recorder.finish(new.dir, file.as_fd());
        self.written.push(recorded.map_err(|e| TransferError::io(&new.stat.path, e))?);
        Ok(())
    }
}
