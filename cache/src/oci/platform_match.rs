//! Which images a platform can run, and which of them suits it best.
//!
//! Source: containerd's `platforms.Only`: newer variants run the older ones, amd64 runs 386, arm64 runs arm.

use super::Platform;

/// The platforms that one platform can run, best first.
#[derive(Clone, Debug)]
pub struct PlatformMatcher {
    candidates: Vec<Platform>,
}

impl PlatformMatcher {
    /// What `platform` can run.
    pub fn new(platform: &Platform) -> Self {
        let platform = platform.normalized();
        let candidates = candidates(&platform.architecture, platform.variant.as_deref())
            .into_iter()
            .map(|(architecture, variant)| {
                Platform { architecture, variant, ..platform.clone() }.normalized()
            })
            .collect();
        Self { candidates }
    }

    /// How well `offered` suits: 0 is best, `None` does not run.
    pub fn rank(&self, offered: &Platform) -> Option<usize> {
        let offered = offered.normalized();
        self.candidates.iter().position(|candidate| runs(candidate, &offered))
    }

    /// Whether `offered` runs at all.
    pub fn matches(&self, offered: &Platform) -> bool {
        self.rank(offered).is_some()
    }
}

fn runs(candidate: &Platform, offered: &Platform) -> bool {
    candidate.os == offered.os
        && candidate.architecture == offered.architecture
        && candidate.variant == offered.variant
        && offered.os_features.iter().all(|feature| candidate.os_features.contains(feature))
        && (offered.os != "windows" || same_windows_build(candidate, offered))
}

/// Whether major, minor and build of two Windows versions agree; any version suits where none is asked for.
fn same_windows_build(candidate: &Platform, offered: &Platform) -> bool {
    let Some(wanted) = candidate.os_version.as_deref() else { return true };
    offered.os_version.as_deref().is_some_and(|found| found.split('.').take(3).eq(wanted.split('.').take(3)))
}

/// Architectures and variants that run on this one, in order of preference.
fn candidates(architecture: &str, variant: Option<&str>) -> Vec<(String, Option<String>)> {
    let own = (architecture.to_owned(), variant.map(str::to_owned));
    let number = variant.and_then(|v| v.strip_prefix('v')).and_then(|v| v.parse::<u32>().ok());
    let older =
        |from: u32, to: u32| (to..from).rev().map(|v| (architecture.to_owned(), Some(format!("v{v}"))));
    match architecture {
        "amd64" => {
            let mut all = vec![own];
            all.extend(older(number.unwrap_or(1), 1));
            all.push(("386".to_owned(), None));
            all
        }
        "arm" => {
            let mut all = vec![own];
            all.extend(older(number.unwrap_or(0), 5));
            all
        }
        "arm64" => arm64_candidates(variant.unwrap_or("v8"), own),
        _ => vec![own],
    }
}

/// arm64 v8.x runs v8.0 to v8.x; v9.x runs v9.0 to v9.x and v8.0 to v8.(x+5); all run 32-bit arm.
fn arm64_candidates(variant: &str, own: (String, Option<String>)) -> Vec<(String, Option<String>)> {
    let version = variant.strip_prefix('v').unwrap_or(variant);
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    let (Ok(major), Ok(minor)) = (major.parse::<u32>(), minor.parse::<u32>()) else { return vec![own] };
    let ranges = match major {
        8 => vec![(8, minor.min(9))],
        9 => vec![(9, minor.min(9)), (8, (minor.min(9) + 5).min(9))],
        _ => return vec![own],
    };
    let name = |major: u32, minor: u32| match minor {
        0 => format!("v{major}"),
        _ => format!("v{major}.{minor}"),
    };
    let mut all: Vec<_> = ranges
        .into_iter()
        .flat_map(|(major, top)| (0..=top).rev().map(move |minor| name(major, minor)))
        .map(|variant| ("arm64".to_owned(), Some(variant)))
        .collect();
    all.extend((5..=8).rev().map(|v| ("arm".to_owned(), Some(format!("v{v}")))));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        let cases = [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/386", Some(1)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64/v3", "linux/amd64/v2", Some(1)),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64", "linux/arm/v8", Some(1)),
            ("linux/arm64", "linux/arm/v7", Some(2)),
            ("linux/arm64/v8.2", "linux/arm64/v8.1", Some(1)),
            ("linux/arm64/v9", "linux/arm64/v8.5", Some(1)),
            ("linux/arm64", "linux/arm64/v9", None),
            ("linux/arm/v7", "linux/arm/v5", Some(2)),
            ("linux/386", "linux/amd64", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/riscv64", "linux/riscv64", Some(0)),
        ];
        for (host, offered, expected) in cases {
            let matcher = PlatformMatcher::new(&host.parse().unwrap());
            assert_eq!(matcher.rank(&offered.parse().unwrap()), expected, "{offered} on {host}");
        }
    }
}
