//! Platforms: parsing, normal form and text, with containerd's rules.
//!
//! Source: the specifier syntax `os[(version)][/arch[/variant]]` and the aliases of containerd's `platforms`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use solver::platform::{self, is_component, is_known_architecture, is_known_os, normalize_os};

use super::Error;
use super::lossless::null_is_default;

/// What an image runs on, in Go's names for systems and architectures.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The CPU architecture: `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// The operating system: `linux`, `windows`, …
    #[serde(default)]
    pub os: String,
    /// The version of the operating system (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features that the operating system must have.
    #[serde(
        rename = "os.features",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub os_features: Vec<String>,
    /// The variant of the architecture: `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// CPU features, in Docker manifest lists. Never compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub features: Vec<String>,
}

impl Platform {
    /// The platform this program runs on.
    pub fn host() -> Self {
        Self {
            architecture: platform::host_architecture().to_owned(),
            os: "linux".to_owned(),
            ..Self::default()
        }
    }

    /// The same platform in normal form: aliases resolved, default variants left out (`arm` keeps `v7`).
    #[must_use]
    pub fn normalized(&self) -> Self {
        let variant = self.variant.as_deref().unwrap_or_default();
        let (architecture, variant) = normalize_architecture(&self.architecture, variant);
        let mut os_features = self.os_features.clone();
        os_features.sort();
        os_features.dedup();
        Self { architecture, os: normalize_os(&self.os), os_features, variant, ..self.clone() }
    }
}

impl Platform {
    /// As [`fmt::Display`], with the system's version and features, which tell the platforms of one result apart:
    /// `windows(10.0.17763+win32k)/amd64`.
    pub fn full(&self) -> String {
        let mut features: Vec<&str> = self.os_features.iter().map(String::as_str).collect();
        features.sort_unstable();
        let version = self.os_version.iter().map(String::as_str).filter(|version| !version.is_empty());
        let options: String =
            version.map(str::to_owned).chain(features.iter().map(|f| format!("+{f}"))).collect();
        let short = self.to_string();
        match options.is_empty() {
            true => short,
            false => short.replacen(&self.os, &format!("{}({options})", self.os), 1),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os.is_empty() {
            return f.write_str("unknown");
        }
        f.write_str(&self.os)?;
        for part in [Some(self.architecture.as_str()), self.variant.as_deref()].into_iter().flatten() {
            if !part.is_empty() {
                write!(f, "/{part}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(input: &str) -> Result<Self, Error> {
        let fail = |reason| Error::Platform { input: input.to_owned(), reason };
        if input.contains('*') {
            return Err(fail("wildcards are not supported"));
        }
        let parts: Vec<&str> = input.split('/').collect();
        let (os, os_version, os_features) = split_os(parts[0]).ok_or_else(|| fail("malformed system"))?;
        if parts[1..].iter().any(|part| !is_component(part)) {
            return Err(fail("malformed architecture or variant"));
        }
        let platform = |(architecture, variant): (String, Option<String>), os: String| Self {
            architecture,
            os,
            os_version: os_version.clone(),
            os_features: os_features.clone(),
            variant,
            features: Vec::new(),
        };
        // `linux/arm` and `linux/arm/v7` are the same; the short one is shown without its variant.
        let short = |(architecture, variant): (String, Option<String>)| match architecture.as_str() {
            "arm" if variant.as_deref() == Some("v7") => (architecture, None),
            _ => (architecture, variant),
        };
        match parts.as_slice() {
            [_] if is_known_os(&os) => Ok(platform((Self::host().architecture, None), os)),
            [name] => {
                let (architecture, variant) = short(normalize_architecture(name, ""));
                if !is_known_architecture(&architecture) {
                    return Err(fail("unknown operating system or architecture"));
                }
                Ok(platform((architecture, variant), "linux".to_owned()))
            }
            [_, architecture] => Ok(platform(short(normalize_architecture(architecture, "")), os)),
            [_, architecture, variant] => {
                let mut parsed = normalize_architecture(architecture, variant);
                if parsed.0 == "arm64" && parsed.1.is_none() {
                    parsed.1 = Some("v8".to_owned());
                }
                Ok(platform(parsed, os))
            }
            _ => Err(fail("more than three parts")),
        }
    }
}

/// Splits `os(version+feature+feature)`.
fn split_os(part: &str) -> Option<(String, Option<String>, Vec<String>)> {
    let (name, options) = match part.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')?),
        None => (part, ""),
    };
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let option = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let mut options = options.split('+');
    let version = options.next().unwrap_or_default();
    let features: Vec<String> = options.map(str::to_owned).collect();
    if name.is_empty() || !plain(name) || !option(version) {
        return None;
    }
    if features.iter().any(|feature| feature.is_empty() || !option(feature)) {
        return None;
    }
    let version = (!version.is_empty()).then(|| version.to_owned());
    Some((normalize_os(name), version, features))
}

/// [`platform::normalize_architecture`], with no variant where it is empty.
fn normalize_architecture(architecture: &str, variant: &str) -> (String, Option<String>) {
    let (architecture, variant) = platform::normalize_architecture(architecture, variant);
    (architecture, (!variant.is_empty()).then_some(variant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_tell_platforms_apart() {
        for (given, full) in
            [("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"), ("linux/arm/v6", "linux/arm/v6")]
        {
            assert_eq!(given.parse::<Platform>().unwrap().full(), full);
        }
        let features = vec!["b".to_owned(), "a".to_owned()];
        let platform = Platform { os_features: features, ..Platform::host() };
        assert!(platform.full().starts_with("linux(+a+b)/"), "{}", platform.full());
    }

    #[test]
    fn specifiers_parse() {
        let host = Platform::host().to_string();
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/armhf", "linux/arm"),
            ("linux/armel", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
            ("s390x", "linux/s390x"),
            ("macos/arm64", "darwin/arm64"),
            ("windows(10.0.17763)/amd64", "windows/amd64"),
            ("linux", host.as_str()),
        ];
        for (input, expected) in cases {
            assert_eq!(
                input.parse::<Platform>().map(|p| p.to_string()).ok().as_deref(),
                Some(expected),
                "{input}"
            );
        }
        let windows: Platform = "windows(10.0.17763+win32k)/amd64".parse().unwrap();
        assert_eq!(windows.os_version.as_deref(), Some("10.0.17763"));
        assert_eq!(windows.os_features, ["win32k"]);
    }

    #[test]
    fn malformed_specifiers_are_refused() {
        for input in
            ["", "/", "linux/", "nonsense", "linux/*", "a/b/c/d", "linux/a b", "windows(/amd64", "l!/amd64"]
        {
            assert!(input.parse::<Platform>().is_err(), "{input:?}");
        }
    }

    #[test]
    fn normal_forms() {
        let normal = |text: &str| text.parse::<Platform>().unwrap().normalized();
        assert_eq!(normal("linux/arm64/v8"), normal("linux/arm64"));
        assert_eq!(normal("linux/arm"), normal("linux/arm/v7"));
        assert_ne!(normal("linux/arm/v6"), normal("linux/arm/v7"));
    }

    proptest! {
        #[test]
        fn text_and_normal_form_are_stable(text in "(linux|windows|macos)/(amd64|x86_64|arm|arm64|armhf|s390x)(/v?[5-9])?") {
            let parsed: Platform = text.parse().unwrap();
            prop_assert_eq!(&parsed.to_string().parse::<Platform>().unwrap(), &parsed);
            prop_assert_eq!(parsed.normalized().normalized(), parsed.normalized());
        }
    }
}
