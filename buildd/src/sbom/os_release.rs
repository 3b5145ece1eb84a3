//! `os-release` (os-release(5)): whose packages the ones of a distribution are.

use super::package::Package;
use super::stanzas::text;

/// Which distribution a file system is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// Such as `debian`; empty where that is not known.
    pub id: String,
    /// Such as `12`; empty where there is none.
    pub version: String,
}

impl OsRelease {
    /// Reads the file; what is no name there counts as not said.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = text(bytes);
        let value = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
            let value = lines.next_back().unwrap_or_default().trim().trim_matches(['"', '\'']);
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if value.len() <= 64 && value.chars().all(plain) { value.to_owned() } else { String::new() }
        };
        Self { id: value("ID").to_ascii_lowercase(), version: value("VERSION_ID") }
    }

    /// Says of a distribution's package whose it is.
    pub(super) fn name(&self, package: Package) -> Package {
        if !package.ecosystem.is_of_distribution() || self.id.is_empty() {
            return package;
        }
        let distro = match self.version.is_empty() {
            true => self.id.clone(),
            false => format!("{}-{}", self.id, self.version),
        };
        Package { namespace: self.id.clone(), ..package }.qualified("distro", &distro)
    }
}
