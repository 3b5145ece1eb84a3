//! Diff IDs, found out ahead: a layer that an image is going to name is hashed while the build goes on.
//!
//! One thread takes the layers in the order in which they were made, below the priority of steps. Who needs a diff ID
//! waits for the layer that is being hashed and hashes the others itself, so no layer is hashed twice. What is not
//! wanted any more (the build is over, the layer is packed and hashed on the way) is dropped, also half done: then
//! nothing was noted, as after a kill.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cache::oci::media_type;
use cache::store::{BlobRef, Store};
use rustix::process::{Pid, getpriority_process, setpriority_process};
use solver::{ExecError, LayerId};
use tokio_util::sync::CancellationToken;

use super::chains::from_store;

/// The thread ends when there was nothing to do for this long, which keeps the idle daemon small.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How much nicer the thread is than the rest of the daemon (`setpriority(2)`).
const NICER: i32 = 10;

/// Hashes layers in the background.
#[derive(Debug)]
pub(super) struct DiffIds {
    store: Store,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Something waits, or all is over.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Builds that end with an image whose layers are not packed.
    expected: HashSet<String>,
    /// Not begun, oldest first.
    waiting: VecDeque<Wanted>,
    running: Option<Running>,
    /// The thread takes what waits; else a new one has to be started.
    serving: bool,
    thread: Option<JoinHandle<()>>,
    closed: bool,
}

#[derive(Debug, Clone)]
struct Wanted {
    layer: LayerId,
    build: String,
}

/// A layer that is being hashed.
#[derive(Debug)]
struct Running {
    wanted: Wanted,
    thread: Pid,
    stop: Arc<AtomicBool>,
    ended: CancellationToken,
}

/// While it lives, a build's layers are hashed as they are made.
#[derive(Debug)]
pub(super) struct Expected {
    ids: Arc<DiffIds>,
    build: String,
}

impl DiffIds {
    /// Of the layers of `store`.
    pub(super) fn new(store: Store) -> Self {
        Self { store, queue: Arc::default() }
    }

    /// Begins to hash what `build` makes.
    pub(super) fn expect(self: &Arc<Self>, build: &str) -> Expected {
        self.queue.lock().expected.insert(build.to_owned());
        Expected { ids: self.clone(), build: build.to_owned() }
    }

    /// Notes layers that a build made for its result.
    pub(super) fn made(&self, build: &str, layers: impl Iterator<Item = LayerId>) {
        let mut state = self.queue.lock();
        if state.closed || !state.expected.contains(build) {
            return;
        }
        state.waiting.extend(layers.map(|layer| Wanted { layer, build: build.to_owned() }));
        if !state.serving && !state.waiting.is_empty() {
            let (store, queue) = (self.store.clone(), self.queue.clone());
            let started =
                std::thread::Builder::new().name("diff-ids".into()).spawn(move || queue.serve(&store));
            match started {
                // An earlier one has ended.
                Ok(thread) => (state.serving, state.thread) = (true, Some(thread)),
                Err(e) => {
                    tracing::warn!("cannot start a thread for diff IDs: {e}");
                    state.waiting.clear();
                }
            }
        }
        self.queue.changed.notify_one();
    }

    /// Returns when nobody works on the layer and nobody is going to: the caller then finds its diff ID in the store,
    /// or finds it out itself.
    pub(super) async fn settled(&self, layer: &LayerId) {
        let ended = {
            let mut state = self.queue.lock();
            state.waiting.retain(|w| w.layer != *layer);
            state.running.as_ref().filter(|r| r.wanted.layer == *layer).map(|running| {
                // Somebody waits now.
                set_priority(Some(running.thread), 0);
                running.ended.clone()
            })
        };
        if let Some(ended) = ended {
            ended.cancelled().await;
        }
    }

    /// Drops a layer whose diff ID comes out of other work.
    pub(super) fn forgo(&self, layer: &LayerId) {
        self.queue.lock().drop_where(|w| w.layer == *layer);
    }

    /// Drops everything and ends the thread.
    pub(super) fn close(&self) {
        let thread = {
            let mut state = self.queue.lock();
            state.closed = true;
            state.drop_where(|_| true);
            state.thread.take()
        };
        self.queue.changed.notify_all();
        // A thread that panicked has said so.
        let _ended = thread.map(JoinHandle::join);
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut state = self.ids.queue.lock();
        state.expected.remove(&self.build);
        state.drop_where(|w| w.build == self.build);
    }
}

impl State {
    fn drop_where(&mut self, unwanted: impl Fn(&Wanted) -> bool) {
        self.waiting.retain(|w| !unwanted(w));
        if let Some(running) = self.running.as_ref().filter(|r| unwanted(&r.wanted)) {
            running.stop.store(true, Ordering::Relaxed);
        }
    }

    fn end(&mut self) {
        if let Some(running) = self.running.take() {
            running.ended.cancel();
        }
    }
}

/// A thread that panics leaves nobody waiting for it.
struct Abandon<'a>(&'a Queue);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.0.lock();
            state.serving = false;
            state.end();
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, store: &Store) {
        let _on_panic = Abandon(self);
        while let Some((layer, stop)) = self.next() {
            set_priority(None, NICER);
            if let Err(e) = hash(store, layer, &stop) {
                // Whoever needs it tries again and tells; a layer that nobody needs may be gone.
                tracing::debug!(%layer, "no diff ID ahead: {e}");
            }
            self.lock().end();
        }
    }

    /// Takes the next layer, waiting a while for one.
    fn next(&self) -> Option<(LayerId, Arc<AtomicBool>)> {
        let mut state = self.lock();
        loop {
            if let Some(wanted) = state.waiting.pop_front() {
                let (layer, stop) = (wanted.layer, Arc::<AtomicBool>::default());
                let (thread, ended) = (rustix::thread::gettid(), CancellationToken::new());
                state.running = Some(Running { wanted, thread, stop: stop.clone(), ended });
                return Some((layer, stop));
            }
            let (next, waited) =
                self.changed.wait_timeout(state, KEEP_ALIVE).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if state.closed || (waited.timed_out() && state.waiting.is_empty()) {
                state.serving = false;
                return None;
            }
        }
    }
}

/// Finds out a layer's diff ID unless it is known.
fn hash(store: &Store, layer: LayerId, stop: &AtomicBool) -> Result<(), ExecError> {
    let known = store.layers().get(&layer).map_err(from_store)?;
    if known.is_some_and(|info| info.diff_id.is_none()) {
        plain_tar(store, layer, stop)?;
    }
    Ok(())
}

/// The descriptor of the plain tar, which need not be kept: the layer always gives the same. Blocking.
///
/// # Errors
/// A layer that is not there or damaged; when `stop` was set.
pub(super) fn plain_tar(store: &Store, id: LayerId, stop: &AtomicBool) -> Result<BlobRef, ExecError> {
    let layers = store.layers();
    let (entries, dirs) = (layers.entries(&id).map_err(from_store)?, layers.dirs(&id).map_err(from_store)?);
    let (digest, size) = cache::layer::diff_id(&entries, &dirs, stop).map_err(ExecError::failed)?;
    let plain = BlobRef { media_type: media_type::OCI_LAYER.to_owned(), digest, size };
    layers.add_form(&id, &digest, plain.clone()).map_err(from_store)?;
    Ok(plain)
}

/// Sets how much nicer a thread is than the daemon; none is the calling one.
///
/// Only root can raise a lowered priority again, so in a user namespace all stay as they are.
fn set_priority(thread: Option<Pid>, nicer: i32) {
    if runner::overlay::in_user_namespace() {
        return;
    }
    // The first thread of the daemon has the priority that it was started with.
    let daemon = getpriority_process(Some(rustix::process::getpid())).unwrap_or(0);
    // Without it the work is done all the same.
    let _refused = setpriority_process(thread, (daemon + nicer).min(19));
}

#[cfg(test)]
mod tests;
