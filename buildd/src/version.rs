//! Which version this program is, as client and as daemon.

/// The protocol between client and daemon (`VersionResponse.api`), and between client and a container's monitor: raised with
/// each change that an older side cannot work with.
const API: u32 = 1;

/// Lets a test play a program of another version: `VERSION` or `VERSION/API` in place of this program's own. Not for users,
/// hence in no help text.
const OTHER: &str = "RBUILD_VERSION_OVERRIDE";

/// A version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// Of the program.
    pub version: String,
    /// Of the protocol.
    pub api: u32,
}

impl Version {
    /// This program's.
    pub(crate) fn own() -> Self {
        let own = Self { version: env!("CARGO_PKG_VERSION").to_owned(), api: API };
        match std::env::var(OTHER) {
            Ok(other) if !other.is_empty() => own.replaced(&other),
            _ => own,
        }
    }

    fn replaced(self, other: &str) -> Self {
        let (version, api) = other.split_once('/').unwrap_or((other, ""));
        Self { version: version.to_owned(), api: api.parse().unwrap_or(self.api) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others() {
        let own = || Version { version: "1".into(), api: 1 };
        assert_eq!(own().replaced("2"), Version { version: "2".into(), api: 1 });
        assert_eq!(own().replaced("2/7"), Version { version: "2".into(), api: 7 });
    }
}
