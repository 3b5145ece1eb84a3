//! The thread that writes compressed blocks in their order, while the caller reads on.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use super::pool::Ticket;

/// A block that is being compressed.
pub(super) type Pending = Receiver<io::Result<Ticket>>;

/// Writes into a `W` on a thread of its own; the thread has ended when this is dropped.
#[derive(Debug)]
pub(super) struct Drain<W> {
    queue: Option<SyncSender<Pending>>,
    spare: Receiver<Ticket>,
    thread: Option<JoinHandle<io::Result<W>>>,
}

impl<W: Write + Send + 'static> Drain<W> {
    /// Takes up to `depth` blocks before [`Self::push`] waits.
    pub(super) fn new(inner: W, depth: usize) -> io::Result<Self> {
        let (queue, blocks) = sync_channel(depth);
        let (give_back, spare) = channel();
        let thread = thread::Builder::new().name("compressed".to_owned());
        let thread = thread.spawn(move || write_all(inner, &blocks, &give_back))?;
        Ok(Self { queue: Some(queue), spare, thread: Some(thread) })
    }

    /// Writes `block` after those before it.
    ///
    /// # Errors
    /// Whatever an earlier block gave.
    pub(super) fn push(&mut self, block: Pending) -> io::Result<()> {
        match self.queue.as_ref().map(|queue| queue.send(block)) {
            Some(Ok(())) => Ok(()),
            // The thread has given up.
            _ => self.finish().and(Err(ended())),
        }
    }

    /// A ticket that was written, to be used again.
    pub(super) fn spare(&self) -> Option<Ticket> {
        self.spare.try_recv().ok()
    }

    /// Waits until all is written.
    pub(super) fn finish(&mut self) -> io::Result<W> {
        self.queue = None;
        let thread = self.thread.take().ok_or_else(ended)?;
        thread.join().unwrap_or_else(|_| Err(ended()))
    }
}

impl<W> Drop for Drain<W> {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // Whoever cared for the result called `finish`.
            let _ = thread.join();
        }
    }
}

fn write_all<W: Write>(mut inner: W, blocks: &Receiver<Pending>, spare: &Sender<Ticket>) -> io::Result<W> {
    for block in blocks {
        let ticket = block.recv().map_err(|_| io::Error::other("a compression thread died"))??;
        inner.write_all(&ticket.output)?;
        // Nobody takes it when the last block has been pushed.
        let _ = spare.send(ticket);
    }
    Ok(inner)
}

fn ended() -> io::Error {
    io::Error::other("the thread that writes compressed blocks has ended")
}
