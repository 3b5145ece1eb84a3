//! The host's side of the isolated network, made once by a daemon: which addresses, and NAT for them.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serde::{Deserialize, Serialize};

use super::firewall::{self, Closed};
use super::{LinkPlan, NetworkPlan, pasta};
use crate::error::{Doing, RunnerError};

/// Addresses per daemon: 4,096, of which each keeper takes one.
pub(super) const PREFIX_LENGTH: u8 = 20;
/// Networks to choose from: the upper half of 10.0.0.0/8, which few sites use.
const FIRST_NETWORK: u32 = 0x0a80_0000;
const NETWORKS: u32 = 1 << (PREFIX_LENGTH - 9);
/// Where it is noted which tables there are; gone with the tables when the machine is started anew.
const MARKERS: &str = "/run";
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// A daemon's network and, where it has one, a share in its firewall table, which stays as long as anybody has one.
#[derive(Debug)]
pub(crate) struct Network {
    pub plan: NetworkPlan,
    /// The marker, locked. Copies of the descriptor, in whichever process, share the lock.
    pub share: Option<OwnedFd>,
}

impl Network {
    pub(crate) fn try_clone(&self) -> std::io::Result<Self> {
        let share = self.share.as_ref().map(OwnedFd::try_clone).transpose()?;
        Ok(Self { plan: self.plan.clone(), share })
    }
}

/// What a marker holds.
#[derive(Serialize, Deserialize)]
struct Marked {
    table: String,
    plan: LinkPlan,
    /// Chains of others that hold rules of ours.
    #[serde(default)]
    closed: Vec<Closed>,
}

/// Takes a share in the network of this id. The first one chooses addresses and sets up forwarding and NAT.
///
/// Monitors of an earlier daemon's containers may have shares: their links and this daemon's are then under the same table.
pub(crate) fn set_up(id: &str) -> Result<Network, RunnerError> {
    if crate::overlay::in_user_namespace() {
        pasta::check()?;
        return Ok(Network { plan: NetworkPlan::Pasta, share: None });
    }
    let path = marker(id);
    let open = || {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).doing(|| "note the firewall table")
    };
    loop {
        let file = open()?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_current(&file, &path) {
            make_table(id, &file, &path)?;
        }
        // Not atomic for one who holds the other lock: somebody may have removed the table in between.
        flock(&file, FlockOperation::LockShared).doing(|| "share the firewall table")?;
        if is_current(&file, &path)
            && let Some(Marked { plan, .. }) = read(&file)
        {
            return Ok(Network { plan: NetworkPlan::Links(plan), share: Some(file) });
        }
    }
}

/// Removes the table of this id unless somebody has a share in it. The links go with their namespaces; forwarding stays on,
/// as others may rely on it.
pub(crate) fn tear_down(id: &str) -> Result<(), String> {
    let path = marker(id);
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let Ok(file) = rustix::fs::open(&path, flags, Mode::empty()) else { return Ok(()) };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() || !is_current(&file, &path) {
        return Ok(());
    }
    remove_table(&file)?;
    fs_err::remove_file(&path).map_err(|error| error.to_string())
}

/// Replaces what the marker, which nobody else uses, names by a new table.
fn make_table(id: &str, file: &OwnedFd, path: &Path) -> Result<(), RunnerError> {
    let refused = |reason: String| RunnerError::NetworkRefused { reason };
    remove_table(file).map_err(refused)?;
    let routes = fs_err::read_to_string("/proc/net/route").doing(|| "read the routing table")?;
    let routes: Vec<Route> = routes.lines().skip(1).filter_map(Route::parse).collect();
    let network =
        free_network(id, &routes).ok_or_else(|| refused("no free range of addresses".to_owned()))?;
    let plan = LinkPlan {
        id: id.to_owned(),
        gateway: Ipv4Addr::from(network + 1),
        prefix_length: PREFIX_LENGTH,
        link_prefix: format!("rb{id}-"),
        mtu: uplink_mtu(&routes),
    };
    enable_forwarding()?;
    // Daemons in mount namespaces of their own may have the same id: each has its marker and its table.
    let table = format!("rbuild_{id}_{}", std::process::id());
    // Noted first: what is half made is removed by the next one.
    let marked = Marked { table, plan, closed: firewall::closed() };
    let text = serde_json::to_vec(&marked).map_err(|e| RunnerError::invalid(e.to_string()))?;
    rustix::fs::ftruncate(file, 0).doing(|| "empty the note of the firewall table")?;
    rustix::io::pwrite(file, &text, 0).doing(|| "note the firewall table")?;
    let Marked { table, plan, closed } = &marked;
    for chain in closed {
        if let Err(reason) = chain.admit(&plan.link_prefix, table) {
            // Steps that need no network still run.
            eprintln!("rbuild: the firewall drops what steps send: {reason}");
        }
    }
    firewall::add_table(table, network, &plan.link_prefix).map_err(|reason| {
        // So that nobody takes the note for a table that is there.
        let _left = remove_table(file);
        let _left = fs_err::remove_file(path);
        refused(reason)
    })
}

fn remove_table(file: &OwnedFd) -> Result<(), String> {
    let Some(Marked { table, plan, closed }) = read(file) else { return Ok(()) };
    closed.iter().for_each(|chain| chain.dismiss(&plan.link_prefix, &table));
    firewall::remove_table(&table)
}

fn read(file: &OwnedFd) -> Option<Marked> {
    let mut text = [0; 4096];
    let n = rustix::io::pread(file, &mut text, 0).ok()?;
    serde_json::from_slice(&text[..n]).ok()
}

/// Whether the file still has its name: a lock on one that was removed is worth nothing.
fn is_current(file: &OwnedFd, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (rustix::fs::fstat(file), rustix::fs::lstat(path)) else { return false };
    (open.st_dev, open.st_ino) == (named.st_dev, named.st_ino)
}

/// Tells others that there is a table, and who uses it.
fn marker(id: &str) -> PathBuf {
    Path::new(MARKERS).join(format!("rbuild-{id}.nft"))
}

fn enable_forwarding() -> Result<(), RunnerError> {
    let now = fs_err::read_to_string(IP_FORWARD).doing(|| "read the forwarding switch")?;
    if now.trim() == "1" {
        return Ok(());
    }
    fs_err::write(IP_FORWARD, "1").map_err(|error| RunnerError::NetworkRefused {
        reason: format!("IP forwarding is off and cannot be turned on: {error}"),
    })
}

/// A line of `/proc/net/route`.
struct Route {
    link: String,
    destination: u32,
    mask: u32,
}

impl Route {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // As the kernel prints a big-endian number of this machine's byte order.
        let number = |index: usize| Some(u32::from_be(u32::from_str_radix(fields.get(index)?, 16).ok()?));
        Some(Self { link: (*fields.first()?).to_owned(), destination: number(1)?, mask: number(7)? })
    }

    fn is_default(&self) -> bool {
        self.mask == 0
    }
}

/// A network that no route leads to; the id decides where the search begins, so it is usually the same again.
fn free_network(id: &str, routes: &[Route]) -> Option<u32> {
    let mask = u32::MAX << (32 - PREFIX_LENGTH);
    let seed = id.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let overlaps = |network: u32, route: &Route| {
        let common = mask & route.mask;
        !route.is_default() && network & common == route.destination & common
    };
    (0..NETWORKS)
        .map(|offset| FIRST_NETWORK + ((seed.wrapping_add(offset) % NETWORKS) << (32 - PREFIX_LENGTH)))
        .find(|network| !routes.iter().any(|route| overlaps(*network, route)))
}

/// Largest packet of the link that the default route goes over, bytes.
fn uplink_mtu(routes: &[Route]) -> u32 {
    const ETHERNET: u32 = 1500;
    let link = routes.iter().find(|route| route.is_default()).map(|route| &route.link);
    let read = |link: &String| {
        fs_err::read_to_string(format!("/sys/class/net/{link}/mtu")).ok()?.trim().parse().ok()
    };
    link.and_then(read).unwrap_or(ETHERNET)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                          eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    fn routes(text: &str) -> Vec<Route> {
        text.lines().filter_map(Route::parse).collect()
    }

    #[test]
    fn reads_the_kernels_routes() {
        let routes = routes(ROUTES);
        assert!(routes[0].is_default() && routes[0].link == "eth0");
        assert_eq!(Ipv4Addr::from(routes[1].destination), Ipv4Addr::new(192, 0, 2, 0));
        assert_eq!(Ipv4Addr::from(routes[1].mask), Ipv4Addr::new(255, 255, 255, 0));
    }

    #[test]
    fn avoids_networks_in_use() {
        let free = free_network("a", &routes(ROUTES)).unwrap();
        assert_eq!(free & 0xff80_0000, FIRST_NETWORK);
        assert_eq!(free_network("a", &routes(ROUTES)), Some(free), "the same id finds the same network");
        let taken = [Route { link: "x".into(), destination: free + 5, mask: u32::MAX }];
        let other = free_network("a", &taken).unwrap();
        assert_ne!(other, free);
        let all = [Route { link: "x".into(), destination: 0x0a00_0000, mask: 0xff00_0000 }];
        assert_eq!(free_network("a", &all), None);
    }
}
