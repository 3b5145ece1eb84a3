//! Ruby: `Gemfile.lock`, and the specifications of installed gems.

use super::package::{Ecosystem, Package};
use super::stanzas::text;

/// The gems of a lock file: the lines of four blanks below `specs:`.
pub(super) fn locked(bytes: &[u8]) -> Vec<Package> {
    let text = text(bytes);
    let (mut inside, mut found) = (false, Vec::new());
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(spec) if inside && !spec.starts_with(' ') => {
                let Some((name, version)) = spec.trim_end().split_once(" (") else { continue };
                found.extend(gem(name, version.trim_end_matches(')')));
            }
            Some(_) => {}
            None => inside = line.trim_end() == "  specs:",
        }
    }
    found
}

/// A version may have a platform behind it: `1.2.3-x86_64-linux`.
fn gem(name: &str, version: &str) -> Option<Package> {
    let (version, platform) = version.split_once('-').unwrap_or((version, ""));
    Some(Package::new(Ecosystem::Gem, name, version)?.qualified("platform", platform))
}

/// The gem of a specification that RubyGems wrote: its second line, `# stub: NAME VERSION PLATFORM PATHS`, says which.
pub(super) fn installed(bytes: &[u8]) -> Vec<Package> {
    let text = text(bytes);
    let stub = text.lines().take(5).find_map(|line| line.strip_prefix("# stub: "));
    let mut words = stub.unwrap_or_default().split_whitespace();
    let (Some(name), Some(version)) = (words.next(), words.next()) else { return Vec::new() };
    let platform = words.next().filter(|platform| *platform != "ruby").unwrap_or_default();
    let gem = Package::new(Ecosystem::Gem, name, version);
    gem.map(|gem| gem.qualified("platform", platform)).into_iter().collect()
}
