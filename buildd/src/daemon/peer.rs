//! Who a client is, as far as its connection tells, and what it may therefore ask for.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use tonic::Extensions;
use tonic::transport::server::UdsConnectInfo;

/// The other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Peer {
    /// Nothing is known.
    #[default]
    Unknown,
    /// A user of this machine, by a unix socket.
    User(u32),
    /// Who holds the key to a certificate, of which this is the SHA-256 in hexadecimal digits.
    Certificate(String),
}

/// Whom the configuration calls anybody.
const ANYBODY: &str = "*";

impl Peer {
    /// The client of a call.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let user = extensions.get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        match user {
            Some(user) => Self::User(user.uid()),
            None => extensions.get::<Self>().cloned().unwrap_or_default(),
        }
    }

    /// The holder of a certificate, given in DER.
    pub(super) fn with_certificate(der: &[u8]) -> Self {
        Self::Certificate(hex::encode(Sha256::digest(der)))
    }

    /// What the configuration calls it, if anything is known.
    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::Unknown => None,
            Self::User(uid) => Some(format!("uid:{uid}")),
            Self::Certificate(digits) => Some(format!("cert:{digits}")),
        }
    }

    /// Which of `granted` the client may ask for: all, if the configuration says nothing of it.
    pub(super) fn may_ask_for(
        &self,
        granted: &[String],
        limits: &BTreeMap<String, Vec<String>>,
    ) -> Vec<String> {
        match self.name().and_then(|name| limits.get(&name)).or_else(|| limits.get(ANYBODY)) {
            None => granted.to_vec(),
            Some(limit) => granted.iter().filter(|name| limit.contains(name)).cloned().collect(),
        }
    }
}

/// Whether a text names clients: `uid:N`, `cert:` and the SHA-256 of a certificate in lower case, or `*` for all others.
pub(super) fn is_name(text: &str) -> bool {
    match text.split_once(':') {
        Some(("uid", number)) => number.parse::<u32>().is_ok_and(|n| n.to_string() == number),
        Some(("cert", digits)) => {
            digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        }
        _ => text == ANYBODY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_may_ask_for_its_own() {
        let granted = ["network.host", "security.insecure", "device"].map(str::to_owned);
        let certificate = Peer::with_certificate(b"der");
        let Peer::Certificate(digits) = &certificate else { panic!("{certificate:?}") };
        let limits = |anybody: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
            let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
            anybody.iter().map(|(client, list)| ((*client).to_owned(), names(list))).collect()
        };
        let few = limits(&[
            ("uid:7", &["network.host", "other"]),
            (&format!("cert:{digits}"), &["security.insecure"]),
            ("*", &[]),
        ]);
        assert!(few.keys().all(|name| is_name(name)));
        assert_eq!(Peer::User(7).may_ask_for(&granted, &few), ["network.host"]);
        assert_eq!(certificate.may_ask_for(&granted, &few), ["security.insecure"]);
        for other in [Peer::User(8), Peer::Unknown, Peer::with_certificate(b"other")] {
            assert_eq!(other.may_ask_for(&granted, &few), [""; 0], "{other:?}");
            assert_eq!(other.may_ask_for(&granted, &limits(&[("uid:7", &[])])), granted, "{other:?}");
        }
    }

    #[test]
    fn names_of_clients() {
        let digits = "0123456789abcdef".repeat(4);
        for good in ["*", "uid:0", "uid:1000", &format!("cert:{digits}")] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "uid:",
            "uid:-1",
            "uid:01",
            "uid:root",
            "cert:ab",
            &format!("cert:{}", digits.to_uppercase()),
            "x",
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
