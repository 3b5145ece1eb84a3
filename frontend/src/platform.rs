//! Platform specifiers such as `linux/arm64/v8`, by containerd's rules (`containerd/platforms`).
//!
//! Operating-system features (`windows(10.0.17763+win32k)`) are read and dropped: nothing here can use them.

use solver::op::Platform;
use solver::platform::{
    is_component, is_known_architecture, is_known_os, normalize_architecture, normalize_os,
};
use thiserror::Error;

/// Why a specifier is no platform.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlatformError {
    /// More than three parts, or a wildcard.
    #[error("\"{0}\": cannot parse platform specifier: invalid argument")]
    Unreadable(String),
    /// A part with characters that no platform has.
    #[error(
        "\"{part}\" is an invalid component of \"{specifier}\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    BadPart {
        /// The part.
        part: String,
        /// All of it.
        specifier: String,
    },
    /// A single word that names neither.
    #[error("\"{0}\": unknown operating system or architecture: invalid argument")]
    Unknown(String),
}

/// Parses `OS`, `ARCH`, `OS/ARCH` or `OS/ARCH/VARIANT`; what is missing comes from `host`.
///
/// # Errors
/// Unknown words, bad characters, more than three parts.
pub fn parse(specifier: &str, host: &Platform) -> Result<Platform, PlatformError> {
    let parts: Vec<&str> = specifier.splitn(4, '/').collect();
    if specifier.contains('*') || parts.len() > 3 {
        return Err(PlatformError::Unreadable(specifier.to_owned()));
    }
    let bad = |part: &str| PlatformError::BadPart { part: part.to_owned(), specifier: specifier.to_owned() };
    let (os, os_version) = os_part(parts[0]).ok_or_else(|| bad(parts[0]))?;
    if let Some(part) = parts[1..].iter().find(|part| !is_component(part)) {
        return Err(bad(part));
    }
    match parts[..] {
        [_] if is_known_os(&os) => Ok(Platform { os, os_version, ..arch_of(host) }),
        [word] => {
            let (architecture, variant) = short_arch(word);
            if !is_known_architecture(&architecture) {
                return Err(PlatformError::Unknown(specifier.to_owned()));
            }
            Ok(Platform { os: host.os.clone(), architecture, variant, os_version })
        }
        [_, arch] => {
            let (architecture, variant) = short_arch(arch);
            Ok(Platform { os, architecture, variant, os_version })
        }
        [_, arch, variant] => {
            let (architecture, mut variant) = normalize_architecture(arch, variant);
            if architecture == "arm64" && variant.is_empty() {
                variant = "v8".to_owned();
            }
            Ok(Platform { os, architecture, variant, os_version })
        }
        _ => Err(PlatformError::Unreadable(specifier.to_owned())),
    }
}

/// The canonical spelling: `x86_64` is `amd64`, `arm` is `arm/v7`, `arm64/v8` is `arm64`.
pub fn normalize(platform: &Platform) -> Platform {
    let (architecture, variant) = normalize_architecture(&platform.architecture, &platform.variant);
    Platform {
        os: normalize_os(&platform.os),
        architecture,
        variant,
        os_version: platform.os_version.clone(),
    }
}

/// The specifier without the operating system's version.
pub fn format(platform: &Platform) -> String {
    if platform.os.is_empty() {
        return "unknown".to_owned();
    }
    join(&platform.os, platform)
}

/// The specifier with the operating system's version, as `windows(10.0.17763)/amd64`.
pub fn format_all(platform: &Platform) -> String {
    if platform.os.is_empty() || platform.os_version.is_empty() {
        return format(platform);
    }
    let mut version = platform.os_version.replace('%', "%25");
    for (ch, code) in [("+", "%2B"), ("(", "%28"), (")", "%29"), ("/", "%2F")] {
        version = version.replace(ch, code);
    }
    join(&format!("{}({version})", platform.os), platform)
}

/// The platform of the machine that this was compiled for.
pub fn host() -> Platform {
    let architecture = solver::platform::host_architecture();
    normalize(&Platform {
        os: std::env::consts::OS.to_owned(),
        architecture: architecture.to_owned(),
        ..Platform::default()
    })
}

fn join(os: &str, platform: &Platform) -> String {
    let parts = [os, &platform.architecture, &platform.variant];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

fn arch_of(host: &Platform) -> Platform {
    Platform { architecture: host.architecture.clone(), variant: host.variant.clone(), ..Platform::default() }
}

/// Splits `OS(VERSION+FEATURES)`; `None` where the characters do not fit.
fn os_part(part: &str) -> Option<(String, String)> {
    let (name, options) = match part.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')?),
        None => (part, ""),
    };
    let name_fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let options_fit = options.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.%+-".contains(&b));
    let version = options.split('+').next().unwrap_or("");
    (name_fits && options_fit).then(|| (normalize_os(name), version.to_owned()))
}

/// An architecture given without a variant; `arm` keeps none.
fn short_arch(arch: &str) -> (String, String) {
    match normalize_architecture(arch, "") {
        (arch, variant) if arch == "arm" && variant == "v7" => (arch, String::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amd64() -> Platform {
        Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() }
    }

    #[test]
    fn parses_and_formats() {
        for (text, expected, normal) in [
            ("linux", "linux/amd64", "linux/amd64"),
            ("arm64", "linux/arm64", "linux/arm64"),
            ("linux/arm", "linux/arm", "linux/arm/v7"),
            ("linux/arm64/v8", "linux/arm64/v8", "linux/arm64"),
            ("Linux/x86_64", "linux/amd64", "linux/amd64"),
            ("linux/armhf", "linux/arm", "linux/arm/v7"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
            ("plan9/mine/x", "plan9/mine/x", "plan9/mine/x"),
        ] {
            let platform = parse(text, &amd64()).unwrap();
            assert_eq!(format_all(&platform), expected, "{text}");
            assert_eq!(format_all(&normalize(&platform)), normal, "{text}");
        }
    }

    #[test]
    fn rejects() {
        for text in ["", "wat", "linux/", "linux/a b", "a/b/c/d", "linux/*", "linux(1"] {
            assert!(parse(text, &amd64()).is_err(), "{text}");
        }
    }
}
