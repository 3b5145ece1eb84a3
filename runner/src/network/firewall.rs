//! Rules of the host's packet filter: a table of one's own, and leave to pass by the chains of others.
//!
//! A packet is forwarded only if every chain lets it. Where Docker or ufw is installed, a chain drops whatever nothing
//! in it accepts. There, rules at its end accept what goes to and comes from sandboxes: what somebody refuses explicitly
//! stays refused.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Output, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::PREFIX_LENGTH;

/// iptables over nft's tables.
const IPTABLES: &str = "iptables-nft";
/// Where the kernel lists the tables of iptables' older kind, which nft does not see.
const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";

/// Adds the table of a daemon: masquerades what leaves the host and lets sandboxes reach neither each other nor be
/// reached from outside.
pub(super) fn add_table(table: &str, network: u32, links: &str) -> Result<(), String> {
    let range = format!("{}/{PREFIX_LENGTH}", Ipv4Addr::from(network));
    nft(&format!(
        "add table ip {table}\n\
         delete table ip {table}\n\
         table ip {table} {{\n\
           chain nat {{\n\
             type nat hook postrouting priority srcnat; policy accept;\n\
             ip saddr {range} oifname != \"{links}*\" masquerade\n\
           }}\n\
           chain forward {{\n\
             type filter hook forward priority filter; policy accept;\n\
             iifname \"{links}*\" ip saddr != {range} drop\n\
             oifname \"{links}*\" ct state established,related accept\n\
             oifname \"{links}*\" drop\n\
           }}\n\
         }}\n"
    ))
}

/// Removes the table of a daemon, if it is there.
pub(super) fn remove_table(table: &str) -> Result<(), String> {
    nft(&format!("add table ip {table}\ndelete table ip {table}\n"))
}

/// A chain of somebody else's, through which forwarded packets go, and which drops what nothing in it accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Closed {
    /// `FORWARD` of iptables. Rules of nft's own kind would make its table unreadable to iptables, and so to Docker.
    Iptables {
        /// Which of its two kinds of tables.
        program: String,
    },
    /// Any other.
    Nft {
        /// `ip` or `inet`.
        family: String,
        /// Its table.
        table: String,
        /// Its name.
        chain: String,
    },
}

/// The chains that would drop what goes to and comes from sandboxes. None where they cannot be listed: the network is
/// then as the host leaves it.
pub(super) fn closed() -> Vec<Closed> {
    let listed = tell("nft", &["-j", "list", "chains"]).unwrap_or_default();
    let mut closed = closed_of_nft(&listed, || tell(IPTABLES, &["--version"]).is_ok());
    let legacy = fs_err::read_to_string(LEGACY_TABLES).unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        let program = "iptables-legacy".to_owned();
        let rules = tell(&program, &["-w", "-S", "FORWARD"]).unwrap_or_default();
        if rules.lines().any(|rule| rule == "-P FORWARD DROP") {
            closed.push(Closed::Iptables { program });
        }
    }
    closed
}

/// `has_iptables` is asked only where it matters: it starts a process.
fn closed_of_nft(listed: &str, has_iptables: impl Fn() -> bool) -> Vec<Closed> {
    let listed: Value = serde_json::from_str(listed).unwrap_or_default();
    let chains = listed["nftables"].as_array().into_iter().flatten().map(|item| &item["chain"]);
    let is_closed = |chain: &&Value| {
        chain["hook"] == "forward"
            && chain["policy"] == "drop"
            && matches!(chain["family"].as_str(), Some("ip" | "inet"))
    };
    let named = |chain: &Value| {
        let text = |name: &str| chain[name].as_str().map(str::to_owned);
        let (family, table, chain) = (text("family")?, text("table")?, text("name")?);
        Some(match (&*family, &*table, &*chain) {
            ("ip", "filter", "FORWARD") if has_iptables() => {
                Closed::Iptables { program: IPTABLES.to_owned() }
            }
            _ => Closed::Nft { family, table, chain },
        })
    };
    chains.filter(is_closed).filter_map(named).collect()
}

impl Closed {
    /// Adds rules for links whose names begin with `links`, marked with `mark`.
    pub(super) fn admit(&self, links: &str, mark: &str) -> Result<(), String> {
        match self {
            Self::Iptables { program } => {
                iptables_rules(links, mark).iter().try_for_each(|rule| change(program, "-A", rule))
            }
            Self::Nft { family, table, chain } => {
                let add = format!("add rule {family} {table} {chain}");
                nft(&format!(
                    "{add} iifname \"{links}*\" accept comment \"{mark}\"\n\
                     {add} oifname \"{links}*\" ct state established,related accept comment \"{mark}\"\n"
                ))
            }
        }
    }

    /// Removes those rules again, as far as they are there.
    pub(super) fn dismiss(&self, links: &str, mark: &str) {
        match self {
            Self::Iptables { program } => {
                for rule in iptables_rules(links, mark) {
                    let _gone = change(program, "-D", &rule);
                }
            }
            Self::Nft { family, table, chain } => {
                let listed = tell("nft", &["-j", "-a", "list", "chain", family, table, chain]);
                let listed: Value = serde_json::from_str(&listed.unwrap_or_default()).unwrap_or_default();
                let rules = listed["nftables"].as_array().into_iter().flatten().map(|item| &item["rule"]);
                let ours = rules.filter(|rule| rule["comment"] == mark).filter_map(|r| r["handle"].as_u64());
                let delete = |handle| format!("delete rule {family} {table} {chain} handle {handle}\n");
                let _gone = nft(&ours.map(delete).collect::<String>());
            }
        }
    }
}

fn iptables_rules(links: &str, mark: &str) -> [String; 2] {
    let marked = format!("-m comment --comment {mark} -j ACCEPT");
    [
        format!("-i {links}+ {marked}"),
        format!("-o {links}+ -m conntrack --ctstate RELATED,ESTABLISHED {marked}"),
    ]
}

/// Adds a rule to `FORWARD`, or deletes it.
fn change(program: &str, action: &str, rule: &str) -> Result<(), String> {
    let args = ["-w", action, "FORWARD"].into_iter().chain(rule.split(' '));
    tell(program, &args.collect::<Vec<_>>()).map(drop)
}

/// What a program says on stdout.
fn tell(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    finished(program, output)
}

/// Runs a script of nft's, all of it or nothing.
fn nft(rules: &str) -> Result<(), String> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run `nft` (package nftables): {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A nft that reads no further says why on stderr.
        let _stopped = stdin.write_all(rules.as_bytes());
    }
    finished("nft", child.wait_with_output()).map(drop)
}

fn finished(program: &str, output: std::io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|error| format!("`{program}` failed: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program}` failed: {}", said.lines().next().unwrap_or("without a reason")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_chains_that_drop() {
        let listed = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "nat", "name": "POSTROUTING", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}},
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "rbuild_x_1", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}},
            {"chain": {"family": "inet", "table": "filter", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}]}"#;
        let inet = Closed::Nft { family: "inet".into(), table: "filter".into(), chain: "forward".into() };
        let docker = |program: &str| Closed::Iptables { program: program.into() };
        assert_eq!(closed_of_nft(listed, || true), [docker("iptables-nft"), inet.clone()]);
        let native = Closed::Nft { family: "ip".into(), table: "filter".into(), chain: "FORWARD".into() };
        assert_eq!(closed_of_nft(listed, || false), [native, inet]);
        assert_eq!(closed_of_nft("", || true), []);
    }
}
