//! The sessions that want a vertex.

use std::sync::{Arc, Mutex, PoisonError};

/// The ids of the sessions that wait for one vertex; it grows and shrinks while the vertex runs.
#[derive(Debug, Clone, Default)]
pub struct SessionGroup(Arc<Mutex<Vec<String>>>);

impl SessionGroup {
    /// A group of one; of none where a build has no session, whose id is empty then.
    pub fn of(session: &str) -> Self {
        let group = Self::default();
        group.join(session);
        group
    }

    /// The sessions now, longest waiting first.
    pub fn ids(&self) -> Vec<String> {
        self.lock().clone()
    }

    pub(crate) fn join(&self, session: &str) {
        if !session.is_empty() {
            self.lock().push(session.to_owned());
        }
    }

    /// Whether it was there; a session that joined twice stays once.
    pub(crate) fn leave(&self, session: &str) -> bool {
        let mut ids = self.lock();
        let found = ids.iter().position(|s| s == session);
        if let Some(i) = found {
            ids.remove(i);
        }
        found.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
