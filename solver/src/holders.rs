//! Who holds which vertices: builds that will want them, though they do not wait for them yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::digest::Digest;

/// The sessions of all builds by the shapes of the vertices that they hold ([`crate::key::shapes`]).
#[derive(Debug, Default)]
pub(crate) struct Holders(Mutex<HashMap<Digest, Vec<String>>>);

/// Lets the session of a build serve vertices, whoever executes them, until this is dropped.
///
/// Builds of a bake file that stand on each other run the steps of one target under the session of another.
#[derive(Debug)]
pub struct Hold {
    holders: Arc<Holders>,
    shapes: Vec<Digest>,
    session: String,
}

impl Holders {
    /// Adds `session` for the vertices of these shapes; the empty one stands for none.
    pub(crate) fn hold(self: &Arc<Self>, session: &str, mut shapes: Vec<Digest>) -> Hold {
        if session.is_empty() {
            shapes.clear();
        }
        let mut all = self.lock();
        for shape in &shapes {
            all.entry(*shape).or_default().push(session.to_owned());
        }
        Hold { holders: self.clone(), shapes, session: session.to_owned() }
    }

    /// The sessions for a vertex of this shape, longest holding first.
    pub(crate) fn of(&self, shape: &Digest) -> Vec<String> {
        self.lock().get(shape).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut all = self.holders.lock();
        for shape in &self.shapes {
            let Some(sessions) = all.get_mut(shape) else { continue };
            if let Some(i) = sessions.iter().position(|s| *s == self.session) {
                sessions.remove(i);
            }
            if sessions.is_empty() {
                all.remove(shape);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_serves_while_one_of_its_holds_lives() {
        let holders = Arc::<Holders>::default();
        let [a, b] = [b"a", b"b"].map(|name| Digest::of(name));
        let first = holders.hold("one", vec![a, a, b]);
        let second = holders.hold("one", vec![a]);
        let other = holders.hold("two", vec![b]);
        drop(holders.hold("", vec![a]));
        assert_eq!(holders.of(&b), ["one", "two"]);
        drop(first);
        assert_eq!((holders.of(&a), holders.of(&b)), (vec!["one".to_owned()], vec!["two".to_owned()]));
        drop((second, other));
        assert!(holders.lock().is_empty());
    }
}
