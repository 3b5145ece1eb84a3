//! The network namespaces of one keeper, kept from one sandbox to the next where that is safe.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::WaitOptions;

use super::helper::Helper;
use super::netlink::{Netlink, Pair};
use super::{LinkPlan, NetworkPlan, pasta};
use crate::error::{Doing, RunnerError};
use crate::socket;
use crate::spec::NetworkMode;
use crate::sys::process::{Fork, clone3, exit_now};

/// Loopback is the first link of every namespace.
const LOOPBACK: u32 = 1;
/// The link of an isolated network, inside.
pub(super) const INNER_NAME: &str = "eth0";

/// Made when first needed.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    loopback_only: Option<OwnedFd>,
    isolated: Option<Isolated>,
}

#[derive(Debug)]
struct Isolated {
    namespace: OwnedFd,
    /// Where that connects it.
    _pasta: Option<Helper>,
}

impl Isolated {
    fn new(plan: &NetworkPlan) -> Result<Self, RunnerError> {
        match plan {
            NetworkPlan::Links(plan) => {
                let namespace = make(|host, inner| connect(plan, host, inner))?;
                Ok(Self { namespace, _pasta: None })
            }
            NetworkPlan::Pasta => {
                let namespace = make(|_, _| Ok(()))?;
                let pasta = pasta::connect(&namespace)?;
                Ok(Self { namespace, _pasta: Some(pasta) })
            }
        }
    }
}

impl Namespaces {
    /// The namespace for a sandbox; none means the host's.
    pub(crate) fn get(
        &mut self,
        mode: NetworkMode,
        plan: Option<&NetworkPlan>,
    ) -> Result<Option<&OwnedFd>, RunnerError> {
        Ok(match mode {
            NetworkMode::Host => None,
            NetworkMode::None => {
                if self.loopback_only.is_none() {
                    self.loopback_only = Some(make(|_, _| Ok(()))?);
                }
                self.loopback_only.as_ref()
            }
            NetworkMode::Isolated => {
                if self.isolated.is_none() {
                    let plan =
                        plan.ok_or_else(|| RunnerError::invalid("an isolated network without a plan"))?;
                    self.isolated = Some(Isolated::new(plan)?);
                }
                self.isolated.as_ref().map(|isolated| &isolated.namespace)
            }
        })
    }

    /// After a sandbox: keeps its namespace only if nothing of it can be left there.
    ///
    /// Without CAP_NET_ADMIN a sandbox cannot change links, addresses, routes or filters; its sockets died with it,
    /// except connections in their last phase, which would still hold a port.
    pub(crate) fn settle(&mut self, mode: NetworkMode, trusted: bool) {
        let namespace = match mode {
            NetworkMode::Host => return,
            NetworkMode::None => self.loopback_only.as_ref(),
            NetworkMode::Isolated => self.isolated.as_ref().map(|isolated| &isolated.namespace),
        };
        if !trusted && namespace.is_none_or(is_quiet) {
            return;
        }
        match mode {
            NetworkMode::Host => {}
            NetworkMode::None => self.loopback_only = None,
            NetworkMode::Isolated => self.isolated = None,
        }
    }
}

/// Makes a namespace with loopback up and lets `fill` add to it; gives it the connections to the host's and the new one.
///
/// A short-lived process does it: an ordinary user's keeper could enter a new namespace, but not return to the host's.
fn make(
    fill: impl FnOnce(&Netlink, (&OwnedFd, &Netlink)) -> Result<(), RunnerError>,
) -> Result<OwnedFd, RunnerError> {
    let host = Netlink::open().doing(|| "open a netlink socket")?;
    let (ours, theirs) = socket::pair().doing(|| "create a socket pair")?;
    let pid = match clone3(libc::CLONE_NEWNET).doing(|| "create a network namespace")? {
        Fork::Child => {
            let made = populate(&host, fill);
            report(&theirs, made);
            exit_now(0)
        }
        Fork::Parent { pid, .. } => pid,
    };
    drop(theirs);
    let answer = socket::receive(ours.as_fd()).doing(|| "wait for the network namespace");
    rustix::process::waitpid(Some(pid), WaitOptions::empty()).doing(|| "reap the network helper")?;
    let lost = || RunnerError::NetworkRefused { reason: "the helper process died".to_owned() };
    let answer = answer?.ok_or_else(lost)?;
    match answer.fds.into_iter().next() {
        Some(namespace) => Ok(namespace),
        None => Err(serde_json::from_slice(&answer.bytes).unwrap_or_else(|_| lost())),
    }
}

/// In the helper: the namespace it is in, ready for use.
fn populate(
    host: &Netlink,
    fill: impl FnOnce(&Netlink, (&OwnedFd, &Netlink)) -> Result<(), RunnerError>,
) -> Result<OwnedFd, RunnerError> {
    let namespace = open_current()?;
    let inner = Netlink::open().doing(|| "open a netlink socket")?;
    inner.set_up(LOOPBACK).doing(|| "bring up loopback")?;
    fill(host, (&namespace, &inner))?;
    Ok(namespace)
}

fn report(to: &OwnedFd, made: Result<OwnedFd, RunnerError>) {
    // A keeper that has gone needs no namespace.
    let _gone = match made {
        Ok(namespace) => socket::send(to.as_fd(), b"made", &[namespace.as_fd()]),
        Err(error) => socket::send(to.as_fd(), &serde_json::to_vec(&error).unwrap_or_default(), &[]),
    };
}

fn open_current() -> Result<OwnedFd, RunnerError> {
    rustix::fs::openat(CWD, "/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "open the network namespace")
}

/// Links a namespace to the host: a point-to-point pair with routes for exactly the two addresses.
fn connect(
    plan: &LinkPlan,
    host: &Netlink,
    (namespace, inner): (&OwnedFd, &Netlink),
) -> Result<(), RunnerError> {
    let slot = rustix::process::getpid().as_raw_pid() as u32;
    let (name, address) = claim(plan, host, namespace, slot)?;
    let action = |what: &str| format!("{what} link `{name}`");
    let outer = host.index_of(&name).doing(|| action("find"))?;
    host.no_link_local(outer).doing(|| action("configure"))?;
    host.add_address(outer, plan.gateway, 32).doing(|| action("give an address to"))?;
    host.set_up(outer).doing(|| action("bring up"))?;
    host.add_route(Some(address), None, outer).doing(|| action("route to"))?;
    let index = inner.index_of(INNER_NAME).doing(|| format!("find link `{INNER_NAME}`"))?;
    inner.no_link_local(index).doing(|| format!("configure `{INNER_NAME}`"))?;
    inner.add_address(index, address, 32).doing(|| format!("give an address to `{INNER_NAME}`"))?;
    inner.set_up(index).doing(|| format!("bring up `{INNER_NAME}`"))?;
    inner.add_route(Some(plan.gateway), None, index).doing(|| "route to the gateway")?;
    inner.add_route(None, Some(plan.gateway), index).doing(|| "add the default route")
}

/// The first free name is the first free address: making a link of a given name is atomic.
fn claim(
    plan: &LinkPlan,
    host: &Netlink,
    namespace: &OwnedFd,
    start: u32,
) -> Result<(String, Ipv4Addr), RunnerError> {
    let room = (1_u32 << (32 - u32::from(plan.prefix_length))) - 3;
    for offset in 0..room {
        let n = (start + offset) % room;
        let name = format!("{}{n}", plan.link_prefix);
        let pair =
            Pair { host_name: &name, inner_name: INNER_NAME, namespace: namespace.as_fd(), mtu: plan.mtu };
        match host.make_pair(&pair) {
            Ok(()) => return Ok((name, Ipv4Addr::from(u32::from(plan.gateway) + 1 + n))),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) => return Err(RunnerError::os(format!("create link `{name}`"), error)),
        }
    }
    Err(RunnerError::NetworkRefused { reason: "all addresses are in use".to_owned() })
}

/// Whether no TCP connection is left in the namespace, not even in TIME_WAIT. Unknown is no.
fn is_quiet(namespace: &OwnedFd) -> bool {
    if crate::overlay::in_user_namespace() {
        return visit(namespace, is_quiet_here).is_ok_and(Helper::succeeded);
    }
    let Ok(host) = open_current() else { return false };
    if nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).is_err() {
        return false;
    }
    let quiet = is_quiet_here();
    nix::sched::setns(&host, CloneFlags::CLONE_NEWNET).is_ok() && quiet
}

fn is_quiet_here() -> bool {
    let text = fs_err::read_to_string("/proc/thread-self/net/sockstat").unwrap_or_default();
    text.lines().any(|line| line.starts_with("TCP: inuse 0 ") && line.contains(" tw 0 "))
}

/// Runs `work` in a process inside of `namespace`, which an ordinary user's keeper could enter, but not return from. The
/// process succeeds if `work` says yes.
pub(super) fn visit(namespace: &OwnedFd, work: impl FnOnce() -> bool) -> Result<Helper, RunnerError> {
    match clone3(0).doing(|| "fork into the network namespace")? {
        Fork::Child => {
            let entered = nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).is_ok();
            exit_now(i32::from(!(entered && work())))
        }
        Fork::Parent { pidfd, .. } => Ok(Helper::new(pidfd)),
    }
}
