//! What is configured for a registry host, and what follows from its name.

use std::net::IpAddr;
use std::path::PathBuf;

/// The configuration of one registry host, `[registry."HOST"]` in `buildd.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Hosts to ask before this one, as `host[:port][/prefix]`. They only answer, nothing is pushed to them.
    pub mirrors: Vec<String>,
    /// Plain HTTP: yes, no, or, by default, on loopback only.
    pub http: Option<bool>,
    /// Take any certificate. With `http` as well: try HTTPS first, then HTTP.
    pub insecure: bool,
    /// PEM files of further certificate authorities.
    pub ca: Vec<PathBuf>,
    /// PEM files with a client certificate and its key.
    pub keypair: Vec<(PathBuf, PathBuf)>,
    /// Token servers that get this host's credentials, as `host`.
    ///
    /// Without being listed a token server gets them only if it has the host's own name, whatever the
    /// port, or shares its domain: `auth.docker.io` with `registry-1.docker.io`. Any other is asked
    /// anonymously.
    pub token_hosts: Vec<String>,
}

/// Whether `host` (with port) is this machine itself.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The name or address in `host[:port]`, an IPv6 address without brackets.
pub(super) fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Whether credentials for the registry `host` may go to the token server `realm`, both names without port.
pub(super) fn trusts_realm(host: &str, realm: &str, token_hosts: &[String]) -> bool {
    let (host, realm) = (host.to_ascii_lowercase(), realm.to_ascii_lowercase());
    host == realm || token_hosts.iter().any(|trusted| trusted.eq_ignore_ascii_case(&realm)) || {
        let domain = domain(&host);
        domain.is_some() && domain == self::domain(&realm)
    }
}

/// The part of a name that one owner registered: two labels, three below country codes such as `co.uk`.
fn domain(name: &str) -> Option<String> {
    if name.parse::<IpAddr>().is_ok() {
        return None;
    }
    let labels: Vec<&str> = name.split('.').collect();
    let [.., second, top] = labels.as_slice() else { return None };
    let shared = top.len() == 2
        && matches!(*second, "co" | "com" | "net" | "org" | "gov" | "edu" | "ac" | "or" | "ne");
    let hosted = matches!(
        (*second, *top),
        ("github" | "gitlab", "io") | ("amazonaws" | "azurewebsites" | "appspot", _)
    );
    let count = if shared || hosted { 3 } else { 2 };
    (labels.len() >= count).then(|| labels[labels.len() - count..].join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names() {
        for (host, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.8.9.1", true),
            ("[::1]:5000", true),
            ("example.com", false),
            ("localhost.example.com", false),
            ("127.example.com", false),
            ("10.0.0.1:80", false),
            ("registry:5000", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }

    #[test]
    fn realms_that_get_credentials() {
        let listed = ["iam.cloud.ibm.com".to_owned()];
        for (host, realm, expected) in [
            ("registry-1.docker.io", "auth.docker.io", true),
            ("registry.gitlab.com", "gitlab.com", true),
            ("ghcr.io", "ghcr.io", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("localhost", "localhost", true),
            ("us.icr.io", "iam.cloud.ibm.com", true),
            ("registry.example.com", "evil.com", false),
            ("registry.example.com", "registry.example.com.evil.com", false),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "localhost", false),
            ("a.co.uk", "b.co.uk", false),
            ("r.a.co.uk", "auth.a.co.uk", true),
            ("a.github.io", "b.github.io", false),
            ("registry", "auth", false),
        ] {
            assert_eq!(trusts_realm(host, realm, &listed), expected, "{host} and {realm}");
        }
    }
}
