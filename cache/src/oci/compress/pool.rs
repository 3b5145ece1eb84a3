//! The threads that compress blocks.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::Compression;
use super::block::BlockCodec;

/// A block and its compressed form; the buffers are used again.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
}

type Job = (Ticket, SyncSender<io::Result<Ticket>>);

/// Worker threads that end when the pool is dropped.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(super) fn new(compression: Compression, threads: usize) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let mut pool = Self { jobs: Some(jobs), workers: Vec::with_capacity(threads) };
        for _ in 0..threads {
            let codec = BlockCodec::new(compression)?;
            let queue = Arc::clone(&queue);
            let worker = thread::Builder::new().name("compress".to_owned());
            pool.workers.push(worker.spawn(move || work(codec, &queue))?);
        }
        Ok(pool)
    }

    pub(super) fn threads(&self) -> usize {
        self.workers.len()
    }

    /// Queues a block; the receiver gets it back compressed. The caller bounds how many are queued.
    pub(super) fn submit(&self, ticket: Ticket) -> Receiver<io::Result<Ticket>> {
        let (reply, receiver) = sync_channel(1);
        let jobs = self.jobs.as_ref().expect("the queue is closed only by drop");
        // Without workers the reply end is dropped, and the receiver reports that.
        let _ = jobs.send((ticket, reply));
        receiver
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // A worker that panicked has already shown as a closed reply.
            let _ = worker.join();
        }
    }
}

fn work(mut codec: BlockCodec, queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((mut ticket, reply)) = job else { return };
        let result = codec.compress(&ticket.input, &mut ticket.output).map(|()| ticket);
        // Nobody waits any more when the writer has failed.
        let _ = reply.send(result);
    }
}
