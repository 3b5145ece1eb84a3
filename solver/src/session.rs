//! The sessions that want a vertex.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The ids of the sessions that may serve one vertex; it grows and shrinks while the vertex runs.
#[derive(Debug, Clone, Default)]
pub struct SessionGroup(Arc<Mutex<Sessions>>);

#[derive(Debug, Default)]
struct Sessions {
    /// Those that wait for it.
    waiting: Vec<String>,
    /// Those of builds that hold it and may come to want it.
    standing_by: Vec<String>,
}

impl SessionGroup {
    /// A group of one; of none where a build has no session, whose id is empty then.
    pub fn of(session: &str) -> Self {
        let group = Self::default();
        group.join(session);
        group
    }

    /// The sessions now, longest waiting first; those that do not wait come last.
    pub fn ids(&self) -> Vec<String> {
        let all = self.lock();
        let others = all.standing_by.iter().filter(|id| !all.waiting.contains(id));
        all.waiting.iter().chain(others).cloned().collect()
    }

    pub(crate) fn join(&self, session: &str) {
        if !session.is_empty() {
            self.lock().waiting.push(session.to_owned());
        }
    }

    /// Whether it was there; a session that joined twice stays once.
    pub(crate) fn leave(&self, session: &str) -> bool {
        remove(&mut self.lock().waiting, session)
    }

    /// Adds sessions that serve where those that wait cannot.
    pub(crate) fn stand_by(&self, mut sessions: Vec<String>) {
        let mut seen = HashSet::new();
        sessions.retain(|session| seen.insert(session.clone()));
        self.lock().standing_by = sessions;
    }

    /// Gives up one that only stands by; whether it was there.
    pub(crate) fn dismiss(&self, session: &str) -> bool {
        remove(&mut self.lock().standing_by, session)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(sessions: &mut Vec<String>, session: &str) -> bool {
    let found = sessions.iter().position(|s| s == session);
    if let Some(i) = found {
        sessions.remove(i);
    }
    found.is_some()
}
