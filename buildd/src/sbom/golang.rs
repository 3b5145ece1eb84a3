//! Go: `go.mod` (Go Modules Reference, "go.mod files") and `go.sum`.

use std::collections::BTreeMap;

use super::package::{Ecosystem, Package};
use super::stanzas::text;

/// The modules that `go.mod` requires, replaced where it says so.
pub(super) fn required(bytes: &[u8]) -> Vec<Package> {
    let text = text(bytes);
    let mut block: Option<&str> = None;
    let (mut required, mut replaced) = (Vec::new(), BTreeMap::new());
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let (verb, rest) = match block {
            Some(_) if line == ")" => {
                block = None;
                continue;
            }
            Some(verb) => (verb, line),
            None => line.split_once([' ', '\t']).unwrap_or((line, "")),
        };
        if block.is_none() && rest.trim() == "(" {
            block = Some(verb);
            continue;
        }
        let mut words = rest.split_whitespace().map(|word| word.trim_matches(['"', '`']));
        match verb {
            "require" => required.extend(words.next().zip(words.next())),
            "replace" => {
                let words: Vec<&str> = words.collect();
                let Some(arrow) = words.iter().position(|word| *word == "=>") else { continue };
                let (old, new) = (&words[..arrow], &words[arrow + 1..]);
                // A directory has no version: what is there is a version of the old one.
                if let (Some(old_path), [path, version]) = (old.first(), new) {
                    replaced.insert((*old_path, old.get(1).copied()), (*path, *version));
                }
            }
            _ => {}
        }
    }
    let module = |(path, version)| {
        let other = replaced.get(&(path, Some(version))).or_else(|| replaced.get(&(path, None)));
        let (path, version) = other.copied().unwrap_or((path, version));
        Package::new(Ecosystem::Golang, path, version)
    };
    required.into_iter().filter_map(module).collect()
}

/// The modules whose files `go.sum` has hashes of.
pub(super) fn summed(bytes: &[u8]) -> Vec<Package> {
    let module = |line: &str| {
        let mut words = line.split_whitespace();
        let (path, version) = (words.next()?, words.next()?);
        let is_hash = words.next()?.starts_with("h1:");
        if is_hash && !version.ends_with("/go.mod") {
            Package::new(Ecosystem::Golang, path, version)
        } else {
            None
        }
    };
    text(bytes).lines().filter_map(module).collect()
}
