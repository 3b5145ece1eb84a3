//! `/etc/hosts` and `/etc/resolv.conf` of a sandbox.

use std::net::IpAddr;
use std::path::Path;

use crate::error::{Doing, RunnerError};
use crate::spec::{Dns, NetworkMode, SandboxSpec};

/// The two files' contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameFiles {
    pub hosts: String,
    pub resolv_conf: String,
    /// What the user should know, such as name servers nobody configured.
    pub warning: Option<String>,
}

const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved lists the real servers when the usual file names only its stub.
const RESOLVED_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";
/// As BuildKit and Docker use when the host has no server that a sandbox could reach.
const PUBLIC_NAMESERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Makes both from the request and the host's configuration.
pub(crate) fn files(spec: &SandboxSpec) -> Result<NameFiles, RunnerError> {
    let on_host = read_if_there(HOST_RESOLV_CONF)?;
    let resolved = || read_if_there(RESOLVED_RESOLV_CONF);
    let shares_loopback = spec.network == NetworkMode::Host;
    let (resolv_conf, warning) = resolv_conf(&spec.dns, &on_host, resolved, shares_loopback)?;
    Ok(NameFiles { hosts: hosts(&spec.hostname, &spec.extra_hosts), resolv_conf, warning })
}

fn read_if_there(path: &str) -> Result<String, RunnerError> {
    match fs_err::read(Path::new(path)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).doing(|| format!("read `{path}`")),
    }
}

fn hosts(hostname: &str, extra: &[(String, IpAddr)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        text += &format!("{address}\t{name}\n");
    }
    text
}

#[derive(Debug, Default, Clone)]
struct Resolver {
    nameservers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => resolver.nameservers.extend(words.next()),
                Some("search" | "domain") => resolver.search = words.collect(),
                Some("options") => resolver.options.extend(words),
                _ => {}
            }
        }
        resolver
    }

    fn drop_loopback(&mut self) {
        self.nameservers.retain(|server| {
            let address = server.split('%').next().unwrap_or(server);
            address.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback() && !ip.is_unspecified())
        });
    }

    fn text(&self) -> String {
        let mut text: String =
            self.nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
        for (key, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                text += &format!("{key} {}\n", words.join(" "));
            }
        }
        text
    }
}

fn resolv_conf(
    dns: &Dns,
    on_host: &str,
    resolved: impl FnOnce() -> Result<String, RunnerError>,
    shares_loopback: bool,
) -> Result<(String, Option<String>), RunnerError> {
    let mut resolver = Resolver::parse(on_host);
    if !shares_loopback {
        resolver.drop_loopback();
        if resolver.nameservers.is_empty() {
            let mut real = Resolver::parse(&resolved()?);
            real.drop_loopback();
            resolver.nameservers = real.nameservers;
        }
    }
    if !dns.nameservers.is_empty() {
        resolver.nameservers = dns.nameservers.iter().map(ToString::to_string).collect();
    }
    if !dns.search.is_empty() {
        resolver.search.clone_from(&dns.search);
    }
    if !dns.options.is_empty() {
        resolver.options.clone_from(&dns.options);
    }
    let mut warning = None;
    if resolver.nameservers.is_empty() && !shares_loopback {
        resolver.nameservers = PUBLIC_NAMESERVERS.map(str::to_owned).to_vec();
        let servers = PUBLIC_NAMESERVERS.join(", ");
        warning = Some(format!("the host names no name server that a sandbox can reach, using {servers}"));
    }
    Ok((resolver.text(), warning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(dns: &Dns, host: &str, resolved: &str, shares: bool) -> (String, bool) {
        let (text, warning) = resolv_conf(dns, host, || Ok(resolved.to_owned()), shares).unwrap();
        (text, warning.is_some())
    }

    #[test]
    fn resolv_conf_cases() {
        let none = Dns::default();
        let plain = "# c\nnameserver 10.1.2.3\nsearch a b\noptions ndots:2\n";
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        let set =
            Dns { nameservers: vec!["1.1.1.1".parse().unwrap()], search: vec!["x".into()], options: vec![] };
        let cases = [
            (&none, plain, "", false, "nameserver 10.1.2.3\nsearch a b\noptions ndots:2\n", false),
            (&none, stub, "nameserver 10.0.0.2\n", false, "nameserver 10.0.0.2\noptions edns0\n", false),
            (&none, stub, "", true, "nameserver 127.0.0.53\noptions edns0\n", false),
            (&none, stub, "", false, "nameserver 8.8.8.8\nnameserver 8.8.4.4\noptions edns0\n", true),
            (&none, "", "", false, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n", true),
            (&none, "nameserver fe80::1%eth0\n", "", false, "nameserver fe80::1%eth0\n", false),
            (&set, plain, "", false, "nameserver 1.1.1.1\nsearch x\noptions ndots:2\n", false),
        ];
        for (dns, host, resolved, shares, expected, warned) in cases {
            assert_eq!(text(dns, host, resolved, shares), (expected.to_owned(), warned), "{host:?}");
        }
    }

    #[test]
    fn hosts_lists_the_sandbox_and_what_was_added() {
        let extra = [("db".to_owned(), "10.0.0.9".parse().unwrap())];
        let expected = "127.0.0.1\tlocalhost b\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.9\tdb\n";
        assert_eq!(hosts("b", &extra), expected);
    }
}
