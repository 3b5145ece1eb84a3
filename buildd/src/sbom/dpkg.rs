//! `/var/lib/dpkg/status`, and the files of `status.d` that images without dpkg have.

use super::package::{Ecosystem, Package};
use super::stanzas::{Stanza, stanzas, text};

/// The packages that are installed.
pub(super) fn packages(bytes: &[u8]) -> Vec<Package> {
    stanzas(&text(bytes)).filter_map(|stanza| package(&stanza)).collect()
}

fn package(stanza: &Stanza<'_>) -> Option<Package> {
    // Wanted, error and state; a file of `status.d` has none.
    let installed =
        stanza.get("Status").is_none_or(|status| status.split(' ').next_back() == Some("installed"));
    if !installed {
        return None;
    }
    let (name, version) = (stanza.get("Package")?, stanza.get("Version")?);
    let package = Package::new(Ecosystem::Deb, name, version)?;
    // `NAME (VERSION)`; scanners look vulnerabilities up by it.
    let upstream =
        stanza.get("Source").filter(|source| *source != name).map(|source| match source.split_once(" (") {
            Some((source, version)) => format!("{source}@{}", version.trim_end_matches(')')),
            None => source.to_owned(),
        });
    Some(
        package
            .qualified("arch", stanza.get("Architecture").unwrap_or_default())
            .qualified("upstream", &upstream.unwrap_or_default()),
    )
}
