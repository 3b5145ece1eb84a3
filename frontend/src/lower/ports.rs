//! Port specifications: `[ADDRESS:][HOST:]PORT[-PORT][/PROTOCOL]`.

use std::net::IpAddr;

use thiserror::Error;

use crate::quote::quote;

/// What is wrong with a port.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    /// Only a protocol.
    #[error("invalid port: {}: no port specified", quote(.0))]
    NoPort(String),
    /// A protocol that is none.
    #[error("invalid port: {}: invalid proto: {protocol}", quote(.port))]
    Protocol {
        /// All of it.
        port: String,
        /// The protocol.
        protocol: String,
    },
    /// An address that is none.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// A container port, or range, that is none.
    #[error("invalid containerPort: {0}")]
    Container(String),
    /// A host port, or range, that is none.
    #[error("invalid hostPort: {0}")]
    Host(String),
    /// Ranges of different lengths.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// The container's.
        container: String,
        /// The host's.
        host: String,
    },
}

/// Reads a specification: each container port with its protocol, as the image config has them.
///
/// What lint wants to know is there for wrong ports, too.
pub(super) fn parse(text: &str) -> (Result<Vec<String>, PortError>, Flags) {
    let parts: Vec<&str> = text.split(':').collect();
    let (address, host, container) = match parts[..] {
        [container] => (String::new(), "", container),
        [host, container] => (String::new(), host, container),
        [ref address @ .., host, container] => (address.join(":"), host, container),
        [] => (String::new(), "", ""),
    };
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    let lower = protocol.to_lowercase();
    if port.is_empty() {
        return (Err(PortError::NoPort(text.to_owned())), Flags::default());
    }
    if !matches!(lower.as_str(), "" | "tcp" | "udp" | "sctp") {
        let error = PortError::Protocol { port: text.to_owned(), protocol: protocol.to_owned() };
        return (Err(error), Flags::default());
    }
    let flags = Flags { mapped: !address.is_empty() || !host.is_empty(), odd_case: protocol != lower };
    (exposed(&address, host, port, if lower.is_empty() { "tcp" } else { &lower }), flags)
}

/// What lint wants to know of a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags {
    /// Whether an address or a host port was given, which means nothing here.
    pub(super) mapped: bool,
    /// Whether the protocol is not in lower case.
    pub(super) odd_case: bool,
}

fn exposed(address: &str, host: &str, port: &str, protocol: &str) -> Result<Vec<String>, PortError> {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !address.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(PortError::Address(address.to_owned()));
    }
    let (start, end) = range(port).ok_or_else(|| PortError::Container(port.to_owned()))?;
    if !host.is_empty() {
        let (host_start, host_end) = range(host).ok_or_else(|| PortError::Host(host.to_owned()))?;
        if end != start && end - start != host_end - host_start {
            return Err(PortError::Ranges { container: port.to_owned(), host: host.to_owned() });
        }
    }
    Ok((start..=end).map(|port| format!("{port}/{protocol}")).collect())
}

/// A port or a range of ports.
fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let fits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if fits { text.parse::<i64>().ok().and_then(|port| u16::try_from(port).ok()) } else { None }
    };
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (number(start)?, number(end)?);
    (start <= end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        for (text, expected) in [
            ("80", "80/tcp"),
            ("80/UDP", "80/udp"),
            ("8080:80", "80/tcp"),
            ("1-3/sctp", "1/sctp 2/sctp 3/sctp"),
            ("127.0.0.1:80:81", "81/tcp"),
            ("[::1]:80:81", "81/tcp"),
            ("::1:80:81", "81/tcp"),
            ("10-12:80", "80/tcp"),
        ] {
            assert_eq!(parse(text).0.unwrap().join(" "), expected, "{text}");
        }
    }

    #[test]
    fn refuses() {
        for (text, message) in [
            ("", r#"invalid port: "": no port specified"#),
            ("80/x", r#"invalid port: "80/x": invalid proto: x"#),
            ("a", "invalid containerPort: a"),
            ("3-1", "invalid containerPort: 3-1"),
            ("70000", "invalid containerPort: 70000"),
            ("x:80", "invalid hostPort: x"),
            ("h:1:2", "invalid IP address: h"),
            ("1-2:1-3", "invalid ranges specified for container and host Ports: 1-3 and 1-2"),
        ] {
            assert_eq!(parse(text).0.unwrap_err().to_string(), message, "{text}");
        }
    }
}
