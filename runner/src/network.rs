//! Networks of sandboxes: isolated behind NAT, or nothing but loopback.
//!
//! Where the daemon is root, there is no bridge: each keeper's namespace has a link of its own to the host, with routes for two addresses and
//! nothing else. Sandboxes share no segment on which they could pose as each other, and a link vanishes with its namespace.

mod firewall;
mod helper;
mod namespace;
mod netlink;
mod pasta;
mod plan;

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

pub(crate) use namespace::Namespaces;
pub(crate) use plan::{Network, set_up, tear_down};

/// How keepers make isolated networks. The daemon decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NetworkPlan {
    /// Links to the host, behind NAT.
    Links(LinkPlan),
    /// A process of the user's carries the packets: see [`pasta`].
    Pasta,
}

impl NetworkPlan {
    /// Removes what was made for it on the host, unless somebody else still needs that.
    pub(crate) fn tear_down(&self) -> Result<(), String> {
        match self {
            Self::Links(plan) => tear_down(&plan.id),
            Self::Pasta => Ok(()),
        }
    }
}

/// The links of one daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkPlan {
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
