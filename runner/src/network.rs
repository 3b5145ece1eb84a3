//! Networks of sandboxes: isolated behind NAT, or nothing but loopback.

mod namespace;
mod netlink;

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

pub(crate) use namespace::Namespaces;

/// How the isolated network of one daemon looks. The daemon decides; the keepers make their links by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkPlan {
    /// The host's address on every link, and the sandboxes' gateway.
    pub gateway: Ipv4Addr,
    /// Sandbox `n` has the address `gateway + 1 + n`.
    pub prefix_length: u8,
    /// First letters of the links' names on the host.
    pub link_prefix: String,
}
