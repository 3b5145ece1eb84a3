//! `/lib/apk/db/installed` (Alpine's wiki, "Apk spec").

use super::package::{Ecosystem, Package};
use super::stanzas::{Stanza, stanzas, text};

/// The packages that are installed.
pub(super) fn packages(bytes: &[u8]) -> Vec<Package> {
    stanzas(&text(bytes)).filter_map(|stanza| package(&stanza)).collect()
}

fn package(stanza: &Stanza<'_>) -> Option<Package> {
    let (name, version) = (stanza.get("P")?, stanza.get("V")?);
    let upstream = stanza.get("o").filter(|origin| *origin != name).unwrap_or_default();
    let package = Package::new(Ecosystem::Apk, name, version)?.licensed(stanza.get("L"));
    Some(package.qualified("arch", stanza.get("A").unwrap_or_default()).qualified("upstream", upstream))
}
