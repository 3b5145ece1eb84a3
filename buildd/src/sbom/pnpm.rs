//! `pnpm-lock.yaml`. Its keys are read line by line: they say all, and no YAML of strangers is unfolded.

use super::package::{Ecosystem, Package};
use super::stanzas::text;

/// The packages of a lock file, of any version of its form.
pub(super) fn packages(bytes: &[u8]) -> Vec<Package> {
    let text = text(bytes);
    let (mut inside, mut found) = (false, Vec::new());
    for line in text.lines() {
        if !line.starts_with(' ') {
            inside = line.trim_end() == "packages:" || (inside && line.trim().is_empty());
        } else if inside
            && let Some(key) = line.strip_prefix("  ").filter(|key| !key.starts_with(' '))
            && let Some(key) = key.trim_end().strip_suffix(':')
            && let Some((name, version)) = split(key.trim_matches(['\'', '"']))
        {
            found.extend(Package::new(Ecosystem::Npm, name, version));
        }
    }
    found
}

/// Name and version of `NAME@VERSION(PEERS)`, `/NAME@VERSION(PEERS)` or `/NAME/VERSION_PEERS`.
fn split(key: &str) -> Option<(&str, &str)> {
    let key = key.strip_prefix('/').unwrap_or(key);
    let key = key.split('(').next()?;
    let is_name = |name: &str| name.matches('/').count() == usize::from(name.starts_with('@'));
    let is_version = |version: &str| version.starts_with(|c: char| c.is_ascii_digit());
    let after_scope = key.char_indices().skip(1).find(|(_, c)| *c == '@').map(|(at, _)| at);
    let newer = after_scope.map(|at| (&key[..at], &key[at + 1..]));
    let older = || {
        let (name, version) = key.split('_').next()?.rsplit_once('/')?;
        Some((name, version))
    };
    newer
        .filter(|(name, _)| is_name(name))
        .or_else(|| older().filter(|(name, _)| is_name(name)))
        .filter(|(_, version)| is_version(version))
}
