//! Which instances are in use, by which steps.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Sharing;

/// All instances in use, and a bell that rings when one is given back.
#[derive(Debug, Default)]
pub(in crate::store) struct MountStates {
    in_use: Mutex<HashMap<String, Users>>,
    pub(super) changed: Notify,
    next: AtomicU64,
}

/// Who uses an instance.
#[derive(Debug)]
pub(in crate::store) struct Users {
    /// How often each step mounts it.
    steps: HashMap<String, usize>,
    /// Whether they agreed to share it.
    shared: bool,
    /// Whether it is being made or read; nobody can join yet.
    pub(super) making: bool,
}

impl Users {
    pub(super) fn new(step: &str, sharing: Sharing, making: bool) -> Self {
        Self { steps: HashMap::from([(step.to_owned(), 1)]), shared: sharing == Sharing::Shared, making }
    }

    /// Nobody who changes it.
    pub(super) fn reader() -> Self {
        Self { steps: HashMap::new(), shared: false, making: true }
    }

    /// Whether `step` may use it beside those who do.
    pub(super) fn admits(&self, step: &str, sharing: Sharing) -> bool {
        !self.making && (self.steps.contains_key(step) || (self.shared && sharing == Sharing::Shared))
    }

    pub(super) fn join(&mut self, step: &str) {
        *self.steps.entry(step.to_owned()).or_default() += 1;
    }

    /// Takes one use away. Returns whether nobody uses it any more.
    pub(super) fn leave(&mut self, step: &str) -> bool {
        if let Some(count) = self.steps.get_mut(step) {
            *count -= 1;
            if *count == 0 {
                self.steps.remove(step);
            }
        }
        self.steps.is_empty()
    }
}

impl MountStates {
    /// A name for a user that is like no other.
    pub(in crate::store) fn new_user(&self) -> String {
        self.next.fetch_add(1, Ordering::Relaxed).to_string()
    }

    /// The instances in use, by name. While the guard lives, none is taken, given back or pruned.
    pub(in crate::store) fn lock(&self) -> MutexGuard<'_, HashMap<String, Users>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
