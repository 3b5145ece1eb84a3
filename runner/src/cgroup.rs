//! cgroups: what this host has, and the limits of one keeper's sandboxes.
//!
//! Moving a process into a cgroup waits for an RCU grace period, 6 ms on the reference machine (several hierarchies
//! at once cost no more than one). So a keeper's long-lived cradle is in them and clones the sandboxes, which inherit them:
//! a step pays for writing numbers only, and only for those that change.

mod host;
mod limits;
mod unified;

pub(crate) use host::hierarchies;
pub use host::{Support, Version};
pub(crate) use limits::{Cgroups, Hits, Place, remove_leaf, remove_parent};
use limits::{make_dir, write};
pub use unified::make_room;
