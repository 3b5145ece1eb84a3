//! Networks of sandboxes: isolated behind NAT, or nothing but loopback.
//!
//! There is no bridge: each keeper's namespace has a link of its own to the host, with routes for two addresses and
//! nothing else. Sandboxes share no segment on which they could pose as each other, and a link vanishes with its namespace.

mod namespace;
mod netlink;
mod plan;

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

pub(crate) use namespace::Namespaces;
pub(crate) use plan::{Network, set_up, tear_down};

/// How the isolated network of one daemon looks. The daemon decides; the keepers make their links by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkPlan {
    /// The daemon's [`crate::LauncherConfig::id`].
    pub id: String,
    /// The host's address on every link, and the sandboxes' gateway.
    pub gateway: Ipv4Addr,
    /// Sandbox `n` has the address `gateway + 1 + n`.
    pub prefix_length: u8,
    /// First letters of the links' names on the host.
    pub link_prefix: String,
    /// Largest packet, bytes: that of the way out, or paths would have to be probed for it.
    pub mtu: u32,
}
