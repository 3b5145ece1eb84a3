//! `yarn.lock`, of yarn 1 and of its successors.

use super::package::{Ecosystem, Package};
use super::stanzas::text;

/// The packages of a lock file.
pub(super) fn packages(bytes: &[u8]) -> Vec<Package> {
    let text = text(bytes);
    let (mut name, mut found) = (None, Vec::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(field) = line.strip_prefix("  ").filter(|field| !field.starts_with(' ')) {
            // `version "1.0"`, and in YAML `version: 1.0`.
            let version = field.strip_prefix("version").map(|rest| rest.trim_start_matches([':', ' ']));
            if let (Some(name), Some(version)) = (name, version) {
                found.extend(Package::new(Ecosystem::Npm, name, version.trim().trim_matches('"')));
            }
        } else if !line.starts_with(' ') {
            name = line.trim_end().strip_suffix(':').and_then(name_of);
        }
    }
    found
}

/// The name that a block's requests, `NAME@RANGE, …`, are for.
fn name_of(requests: &str) -> Option<&str> {
    let first = requests.trim_matches('"').split(',').next()?.trim_matches(['"', ' ']);
    let (name, range) = split_name(first)?;
    // The project itself, and one package under another's name.
    match range.strip_prefix("npm:") {
        None if range.starts_with("workspace:") => None,
        Some(real) => Some(split_name(real).map_or(name, |(real, _)| real)),
        None => Some(name),
    }
}

/// The name before an `@` that is not that of a scope, and what stands behind.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let at = text.char_indices().skip(1).find(|(_, c)| *c == '@')?.0;
    Some((&text[..at], &text[at + 1..]))
}
