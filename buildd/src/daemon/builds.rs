//! The builds of this daemon, running and just finished, by the client's ref.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::journal::Journal;

/// How long a finished build's journal can still be asked for: a client may call Status after Solve has returned.
const LINGER: Duration = Duration::from_secs(30);
/// How often a daemon that leaves looks whether its builds have ended.
const POLL: Duration = Duration::from_millis(20);
/// How long Status waits for a build that has not begun.
const ARRIVAL: Duration = Duration::from_secs(10);

/// All builds.
#[derive(Debug)]
pub(super) struct Builds {
    map: Mutex<HashMap<String, Entry>>,
    begun: Notify,
    /// The daemon leaves: none begins any more.
    closed: AtomicBool,
    /// Where journals put what does not stay in memory.
    spill: PathBuf,
}

#[derive(Debug)]
struct Entry {
    journal: Arc<Journal>,
    cancel: CancellationToken,
    finished: Option<Instant>,
    /// It needs the daemon no more.
    resting: bool,
}

/// A build's place in the list; ends when dropped.
#[derive(Debug)]
pub(super) struct Listed {
    builds: Arc<Builds>,
    reference: String,
    /// What the build tells.
    pub journal: Arc<Journal>,
    /// Cancelled when the daemon wants it to end.
    pub cancel: CancellationToken,
}

impl Builds {
    /// None yet; what they tell goes to files in `spill`.
    pub(super) fn new(spill: PathBuf) -> Self {
        Self { map: Mutex::default(), begun: Notify::new(), closed: AtomicBool::default(), spill }
    }

    /// Lets none begin any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether further work may begin.
    ///
    /// # Errors
    /// The daemon leaves.
    pub(super) fn admit(&self) -> Result<(), Status> {
        match self.closed.load(Ordering::Relaxed) {
            true => Err(Status::unavailable("the daemon is shutting down")),
            false => Ok(()),
        }
    }

    /// Lists a build; `None` when one with this ref runs already.
    pub(super) fn begin(self: &Arc<Self>, reference: &str) -> Option<Listed> {
        self.begin_for(reference, &CancellationToken::new())
    }

    /// Lists a build that ends with its `caller`, too.
    pub(super) fn begin_for(self: &Arc<Self>, reference: &str, caller: &CancellationToken) -> Option<Listed> {
        let mut map = self.lock();
        map.retain(|_, e| e.finished.is_none_or(|at| at.elapsed() < LINGER));
        if map.get(reference).is_some_and(|e| e.finished.is_none()) {
            return None;
        }
        let (journal, cancel) = (Arc::new(Journal::new(self.spill.clone())), caller.child_token());
        map.insert(
            reference.to_owned(),
            Entry { journal: journal.clone(), cancel: cancel.clone(), finished: None, resting: false },
        );
        drop(map);
        self.begun.notify_waiters();
        Some(Listed { builds: self.clone(), reference: reference.to_owned(), journal, cancel })
    }

    /// The journal of a build that runs or just finished.
    pub(super) fn known(&self, reference: &str) -> Option<Arc<Journal>> {
        self.lock().get(reference).map(|e| e.journal.clone())
    }

    /// The journal of a build, waiting for one that has not begun.
    pub(super) async fn journal(&self, reference: &str) -> Option<Arc<Journal>> {
        let search = async {
            loop {
                let begun = self.begun.notified();
                tokio::pin!(begun);
                begun.as_mut().enable();
                if let Some(journal) = self.known(reference) {
                    return journal;
                }
                begun.await;
            }
        };
        tokio::time::timeout(ARRIVAL, search).await.ok()
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.lock().values().filter(|e| e.finished.is_none()).count()
    }

    /// How many of them would suffer if the daemon left: not containers that outlive it.
    pub(super) fn busy(&self) -> usize {
        self.lock().values().filter(|e| e.finished.is_none() && !e.resting).count()
    }

    /// Waits until none runs, but not beyond `deadline`; says whether none does.
    pub(super) async fn ended(&self, deadline: tokio::time::Instant) -> bool {
        while self.running() > 0 {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }

    /// Waits until none would suffer if the daemon left.
    pub(super) async fn idle(&self) {
        while self.busy() > 0 {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends all.
    pub(super) fn cancel_all(&self) {
        self.lock().values().for_each(|e| e.cancel.cancel());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    /// From now on it needs the daemon no more.
    pub(super) fn rest(&self) {
        if let Some(e) = self.builds.lock().get_mut(&self.reference) {
            e.resting = true;
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.journal.close();
        if let Some(e) = self.builds.lock().get_mut(&self.reference) {
            e.finished = Some(Instant::now());
        }
    }
}
