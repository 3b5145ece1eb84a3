//! Python: the metadata of installed distributions, and pins of `requirements.txt`.

use super::package::{Ecosystem, Package};
use super::stanzas::{stanzas, text};

/// The distribution that `METADATA` or `PKG-INFO` is of (Python packaging, "Core metadata").
pub(super) fn installed(bytes: &[u8]) -> Vec<Package> {
    let text = text(bytes);
    let Some(head) = stanzas(&text).next() else { return Vec::new() };
    let known = |text: &&str| !text.is_empty() && !text.eq_ignore_ascii_case("unknown");
    let license = head.get("License-Expression").or_else(|| head.get("License")).filter(known);
    let package = || {
        let package = Package::new(Ecosystem::Pypi, head.get("Name")?, head.get("Version")?)?;
        Some(package.licensed(license))
    };
    package().into_iter().collect()
}

/// What is pinned to one version.
pub(super) fn pinned(bytes: &[u8]) -> Vec<Package> {
    text(bytes).lines().filter_map(pin).collect()
}

/// `NAME[EXTRAS]==VERSION`, with whatever follows.
fn pin(line: &str) -> Option<Package> {
    let (name, rest) = line.split_once("==")?;
    let name = name.split('[').next()?.trim();
    let version = rest.trim_start_matches('=').trim_start();
    let version = version.split([' ', '\t', ';', ',', '#', '\\']).next()?.trim_end();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let good = name.chars().all(is_name) && !version.contains('*');
    if good { Package::new(Ecosystem::Pypi, name, version) } else { None }
}
