//! The isolated network of an ordinary user: `pasta` (package passt) carries a namespace's packets over sockets of the
//! user's own, so it takes no rights but access to /dev/net/tun.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use rustix::process::{Pid, Signal};

use super::helper::Helper;
use super::namespace::{INNER_NAME, visit};
use crate::error::{Doing, RunnerError};
use crate::sys::process::{Fork, clone3, exit_now, reset_signals};

const PROGRAM: &str = "pasta";
const TUN: &str = "/dev/net/tun";
/// How long it may take until the namespace has a route; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether this user can have such networks at all.
pub(super) fn check() -> Result<(), RunnerError> {
    rustix::fs::openat(CWD, TUN, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|error| {
        refused(format!("without root it needs `{TUN}`, which cannot be opened: {error}"))
    })?;
    Command::new(PROGRAM)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| refused(format!("without root it needs `{PROGRAM}` (package passt): {error}")))?;
    Ok(())
}

/// Connects a namespace that has nothing but loopback, and waits until it has a route. Gives the process that serves it, which
/// also ends with the keeper.
pub(super) fn connect(namespace: &OwnedFd) -> Result<Helper, RunnerError> {
    let said = rustix::fs::memfd_create("pasta", MemfdFlags::CLOEXEC).doing(|| "make room for a log")?;
    let stdin = namespace.try_clone().doing(|| "duplicate the network namespace")?;
    let log = said.try_clone().doing(|| "duplicate a log")?;
    let keeper = rustix::process::getpid();
    let pasta = match clone3(0).doing(|| format!("fork for `{PROGRAM}`"))? {
        Fork::Child => execute(keeper, stdin, log),
        Fork::Parent { pidfd, .. } => Helper::new(pidfd),
    };
    let ready = visit(namespace, wait_for_route)?;
    let mut ends = [PollFd::new(&ready, PollFlags::IN), PollFd::new(&pasta, PollFlags::IN)];
    rustix::event::poll(&mut ends, None).doing(|| format!("wait for `{PROGRAM}`"))?;
    let failed = !ends[1].revents().is_empty();
    if failed {
        return Err(refused(format!("`{PROGRAM}` failed: {}", last_words(&said))));
    }
    match ready.succeeded() {
        true => Ok(pasta),
        false => Err(refused(format!("`{PROGRAM}` gave the network no route"))),
    }
}

/// In the new process. The namespace is its standard input, as the one descriptor that every version of it keeps open and,
/// with its capabilities gone, can still reach by a path.
fn execute(keeper: Pid, namespace: OwnedFd, log: OwnedFd) -> ! {
    reset_signals();
    let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if bound.is_ok() && rustix::process::getppid() == Some(keeper) {
        let error = Command::new(PROGRAM)
            .args(["--foreground", "--quiet", "--config-net", "--ns-ifname", INNER_NAME])
            .args(["--netns", "/proc/self/fd/0", "--no-netns-quit"])
            // Neither side reaches what listens on the other's loopback.
            .args(["--no-map-gw", "-t", "none", "-u", "none", "-T", "none", "-U", "none"])
            .stdin(namespace)
            .stdout(Stdio::null())
            .stderr(log)
            .exec();
        eprintln!("rbuild-launcher: `{PROGRAM}`: {error}");
    }
    exit_now(127)
}

fn wait_for_route() -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let read = |name: &str| fs_err::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
        if has_default_route(&read("route"), &read("ipv6_route")) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Whether one of the kernel's two tables has a default route over the namespace's link.
fn has_default_route(ipv4: &str, ipv6: &str) -> bool {
    let is = |line: &str, index: usize, value: &str| line.split_whitespace().nth(index) == Some(value);
    let over_ipv4 =
        |line: &str| is(line, 0, INNER_NAME) && is(line, 1, "00000000") && is(line, 7, "00000000");
    let over_ipv6 = |line: &str| is(line, 9, INNER_NAME) && is(line, 1, "00");
    ipv4.lines().any(over_ipv4) || ipv6.lines().any(over_ipv6)
}

fn last_words(log: &OwnedFd) -> String {
    let mut text = [0; 4096];
    let length = rustix::io::pread(log, &mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..length]);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("without a reason").trim().to_owned()
}

fn refused(reason: String) -> RunnerError {
    RunnerError::NetworkRefused { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_is_known() {
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let line = |link: &str, to: &str, mask: &str| {
            format!("{header}{link}\t{to}\t0100000A\t0003\t0\t0\t0\t{mask}\t0\t0\t0\n")
        };
        let local = "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
                     00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n";
        let wide = local.replace("fe80", "0000").replace(" 40 ", " 00 ");
        let cases = [
            (String::new(), "", false),
            (line("eth0", "0002000A", "00FFFFFF"), local, false),
            (line("eth0", "00000000", "00000000"), "", true),
            (line("eth0", "00000000", "00000080"), "", false),
            (line("tun1", "00000000", "00000000"), &wide.replace("eth0", "lo"), false),
            (String::new(), &wide, true),
        ];
        for (ipv4, ipv6, expected) in cases {
            assert_eq!(has_default_route(&ipv4, ipv6), expected, "{ipv4}{ipv6}");
        }
    }
}
