//! Single flight: equal executions run once, whoever asks.
//!
//! A flight belongs to nobody: it runs in a task of its own while at least one [`Seat`] is taken, and is
//! cancelled when the last is given up. Late joiners get the whole log. A failure goes to those who wait
//! and is not kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::log::LogBuffer;
use crate::record::{Key, Record};
use crate::session::SessionGroup;
use crate::traits::{ExecError, ExecFailure, Progress, Update};

type Outcome = Result<Arc<Record>, ExecFailure>;
type Listener = Arc<dyn Fn(Update) + Send + Sync>;

/// All executions under way, by content key.
#[derive(Default)]
pub(crate) struct Flights {
    by_key: Mutex<HashMap<Key, Arc<Flight>>>,
    clock: AtomicU64,
}

/// One execution under way.
pub(crate) struct Flight {
    key: Key,
    started: u64,
    /// Executes even where a record is found.
    forced: bool,
    sessions: SessionGroup,
    cancel: CancellationToken,
    outcome: watch::Sender<Option<Outcome>>,
    audience: Mutex<Audience>,
}

struct Audience {
    seats: usize,
    next: u64,
    listeners: Vec<(u64, Listener)>,
    log: LogBuffer,
}

/// A waiter's place on a flight.
pub(crate) struct Seat {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    id: u64,
    session: String,
}

impl Flights {
    /// A moment on the clock that orders builds and flights.
    pub(crate) fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a seat on a flight for `key`, or begins one with `run`.
    ///
    /// Whoever forces the execution names the moment `forced_since`: a flight that began earlier, or that a record may
    /// answer, is not for them.
    pub(crate) fn board<F>(
        self: &Arc<Self>,
        key: Key,
        forced_since: Option<u64>,
        session: &str,
        listener: Listener,
        run: F,
    ) -> Seat
    where
        F: FnOnce(
            SessionGroup,
            Progress,
            CancellationToken,
        ) -> futures_util::future::BoxFuture<'static, Outcome>,
    {
        let mut map = lock(&self.by_key);
        let fits = |f: &&Arc<Flight>| forced_since.is_none_or(|since| f.forced && f.started >= since);
        if let Some(flight) = map.get(&key).filter(fits).cloned()
            && let Some(id) = flight.join(session)
        {
            drop(map);
            let seat = Seat { flights: self.clone(), flight, id, session: session.to_owned() };
            seat.flight.listen(id, listener);
            return seat;
        }
        let flight = Arc::new(Flight {
            key,
            started: self.now(),
            forced: forced_since.is_some(),
            sessions: SessionGroup::of(session),
            cancel: CancellationToken::new(),
            outcome: watch::channel(None).0,
            audience: Mutex::new(Audience {
                seats: 1,
                next: 1,
                listeners: vec![(0, listener)],
                log: LogBuffer::default(),
            }),
        });
        map.insert(key, flight.clone());
        drop(map);
        let speaker = flight.clone();
        let progress = Progress::new(move |u| speaker.tell(u));
        let work = run(flight.sessions.clone(), progress, flight.cancel.clone());
        let (flights, landed) = (self.clone(), flight.clone());
        tokio::spawn(async move {
            // A panic in the worker is this vertex's failure, not the waiters' hang.
            let outcome = match tokio::spawn(work).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ExecError::failed(Panicked).into()),
            };
            flights.remove(&landed);
            landed.outcome.send_replace(Some(outcome));
        });
        Seat { flights: self.clone(), flight, id: 0, session: session.to_owned() }
    }

    fn remove(&self, flight: &Arc<Flight>) {
        let mut map = lock(&self.by_key);
        if map.get(&flight.key).is_some_and(|f| Arc::ptr_eq(f, flight)) {
            map.remove(&flight.key);
        }
    }
}

/// The worker panicked.
#[derive(Debug, thiserror::Error)]
#[error("internal error: the worker panicked; see the daemon's log")]
struct Panicked;

impl Flight {
    /// `None` when everybody has left already and the flight is being cancelled.
    fn join(&self, session: &str) -> Option<u64> {
        let mut a = lock(&self.audience);
        if a.seats == 0 {
            return None;
        }
        let id = a.next;
        a.next += 1;
        a.seats += 1;
        self.sessions.join(session);
        Some(id)
    }

    /// Repeats the log to a new listener, who hears everything from then on. Takes long for a long log: no other lock is held.
    fn listen(&self, id: u64, listener: Listener) {
        let mut a = lock(&self.audience);
        a.log.replay(|u| listener(u));
        a.listeners.push((id, listener));
    }

    fn tell(&self, update: Update) {
        let mut a = lock(&self.audience);
        for (_, l) in &a.listeners {
            l(update.clone());
        }
        a.log.push(update);
    }
}

impl Seat {
    /// Whether somebody else began the flight.
    pub(crate) fn joined(&self) -> bool {
        self.id > 0
    }

    /// Waits for the flight's outcome.
    pub(crate) async fn outcome(&self) -> Outcome {
        let mut rx = self.flight.outcome.subscribe();
        match rx.wait_for(Option::is_some).await {
            Ok(v) => v.clone().unwrap_or_else(|| Err(ExecError::Canceled.into())),
            Err(_) => Err(ExecError::Canceled.into()),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Order: the map first, as `board` takes it, so that nobody joins a flight that is being cancelled.
        let mut map = lock(&self.flights.by_key);
        let mut a = lock(&self.flight.audience);
        a.seats -= 1;
        a.listeners.retain(|(id, _)| *id != self.id);
        self.flight.sessions.leave(&self.session);
        if a.seats == 0 {
            self.flight.cancel.cancel();
            if map.get(&self.flight.key).is_some_and(|f| Arc::ptr_eq(f, &self.flight)) {
                map.remove(&self.flight.key);
            }
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::digest::Digest;

    fn board(flights: &Arc<Flights>, forced_since: Option<u64>) -> Seat {
        let key = Key(Digest::of(b"k"));
        let wait = |_, _, cancel: CancellationToken| {
            async move {
                cancel.cancelled().await;
                Err(ExecError::Canceled.into())
            }
            .boxed()
        };
        flights.board(key, forced_since, "s", Arc::new(|_| ()), wait)
    }

    #[tokio::test]
    async fn who_forces_an_execution_never_shares_one_that_a_record_may_answer() {
        let flights = Arc::<Flights>::default();
        let begun = flights.now();
        let lazy = board(&flights, None);
        let forced = board(&flights, Some(begun));
        assert!(!Arc::ptr_eq(&lazy.flight, &forced.flight));
        for since in [None, Some(begun)] {
            assert!(Arc::ptr_eq(&forced.flight, &board(&flights, since).flight));
        }
        let later = board(&flights, Some(flights.now()));
        assert!(!Arc::ptr_eq(&forced.flight, &later.flight), "it began before the later build");
    }

    #[tokio::test]
    async fn a_flight_without_seats_is_cancelled_and_not_joined() {
        let flights = Arc::<Flights>::default();
        let (one, two) = (board(&flights, None), board(&flights, None));
        let flight = one.flight.clone();
        drop(one);
        assert!(!flight.cancel.is_cancelled());
        drop(two);
        assert!(flight.cancel.is_cancelled());
        assert!(!Arc::ptr_eq(&flight, &board(&flights, None).flight));
    }
}
