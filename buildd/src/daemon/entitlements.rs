//! What one build may do beyond the usual.

use std::collections::BTreeSet;
use std::sync::Arc;

use solver::op::CdiDevice;

use super::devices::{Devices, GrantError, Grants};

/// What both sides grant a build.
#[derive(Debug)]
pub(super) struct Entitlements {
    names: BTreeSet<String>,
    grants: Grants,
    /// What this machine has.
    devices: Arc<Devices>,
}

impl Entitlements {
    /// Those of `names` that the client asked for; the daemon's configuration has been looked at.
    ///
    /// # Errors
    /// A grant of a device that says nothing.
    pub(super) fn new(names: BTreeSet<String>, devices: Arc<Devices>) -> Result<Self, GrantError> {
        let grants = Grants::of(&names)?;
        Ok(Self { names, grants, devices })
    }

    /// Whether one was granted.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The devices for what a step asks for, by their own names.
    ///
    /// # Errors
    /// A device that is not there and not optional, or not granted.
    pub(super) fn devices(&self, wanted: &[CdiDevice]) -> Result<Vec<CdiDevice>, GrantError> {
        self.grants.resolve(wanted, &self.devices)
    }
}
