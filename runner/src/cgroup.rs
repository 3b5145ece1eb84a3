//! cgroups: what this host has, and the limits of one keeper's sandboxes.
//!
//! Moving a process into a cgroup waits for an RCU grace period, 6 ms per hierarchy on the reference machine. So the
//! long-lived keeper is in its cgroups and its sandboxes inherit them: a step pays for writing numbers only.

mod host;
mod limits;

pub(crate) use host::hierarchies;
pub use host::{Support, Version};
pub(crate) use limits::{Cgroups, remove_leaf, remove_parent};
