//! Image references: `[registry/]path[:tag][@digest]`.
//!
//! Source: the grammar of `distribution/reference`, with Docker's normalisation: `busybox` is
//! `docker.io/library/busybox`, and the first part is a registry if it has a dot, a colon or a capital,
//! or is `localhost`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use solver::Digest;

use super::Error;

/// The registry of names without one.
const DEFAULT_DOMAIN: &str = "docker.io";
/// The namespace of Docker Hub names without one.
const OFFICIAL: &str = "library/";
/// The longest repository path, in bytes; distribution's limit.
const MAX_PATH: usize = 255;
/// The longest tag, in bytes; distribution's limit.
const MAX_TAG: usize = 128;

/// A valid, normalised image reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses and normalises what a user wrote.
    ///
    /// # Errors
    /// [`Error::Reference`] and [`Error::Uppercase`].
    pub fn parse(input: &str) -> Result<Self, Error> {
        let fail = |reason| Error::Reference { input: input.to_owned(), reason };
        if input.len() == 64 && input.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) {
            return Err(fail("64 hexadecimal digits are an image ID, not a name"));
        }
        let (domain, remainder) = split_domain(input);
        let before_tag = remainder.split(':').next().unwrap_or_default();
        if before_tag.split('@').next().unwrap_or_default().chars().any(char::is_uppercase) {
            return Err(Error::Uppercase { name: before_tag.to_owned() });
        }
        let (named, digest) = match remainder.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match named.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (named, None),
        };
        if !is_domain(&domain) {
            return Err(fail("malformed registry name"));
        }
        if !is_path(path) {
            return Err(fail("malformed repository name"));
        }
        if path.len() > MAX_PATH {
            return Err(fail("the repository name is longer than 255 characters"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(fail("malformed tag"));
        }
        let digest = digest
            .map(|digest| {
                digest.parse().map_err(|_| fail("the digest is not `sha256:` and 64 hexadecimal digits"))
            })
            .transpose()?;
        Ok(Self { domain, path: path.to_owned(), tag: tag.map(str::to_owned), digest })
    }

    /// The registry's name, with port: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Registry and repository: `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same reference; with the tag `latest` if it has neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The same repository under another tag and without a digest.
    ///
    /// # Errors
    /// [`Error::Reference`] when `tag` is malformed.
    pub fn with_tag(&self, tag: &str) -> Result<Self, Error> {
        if !is_tag(tag) {
            return Err(Error::Reference { input: tag.to_owned(), reason: "malformed tag" });
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same name pinned to a digest, the tag kept.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// What a registry is asked for: the digest, else the tag, else `latest`.
    pub fn identifier(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The short form that users know: `busybox:1.36` for `docker.io/library/busybox:1.36`.
    pub fn familiar(&self) -> String {
        let name = match self.domain.as_str() {
            DEFAULT_DOMAIN => match self.path.strip_prefix(OFFICIAL) {
                Some(official) if !official.contains('/') => official.to_owned(),
                _ => self.path.clone(),
            },
            _ => self.repository(),
        };
        format!("{name}{}", Suffix(self))
    }
}

/// The tag and digest of a reference, as text.
struct Suffix<'a>(&'a Reference);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, Suffix(self))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(input: &str) -> Result<Self, Error> {
        Self::parse(input)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Registry and remainder, with Docker Hub's defaults filled in.
fn split_domain(input: &str) -> (String, String) {
    let (domain, remainder) = match input.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, input),
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL}{remainder}"));
    }
    (domain.to_owned(), remainder.to_owned())
}

/// `host[:port]`, where host is a name, an IPv4 address or an IPv6 address in brackets.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// Lower-case letters and digits, parted by one dot, one or two underscores, or dashes.
fn is_path_component(text: &str) -> bool {
    let is_alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let Some((first, last)) = text.bytes().next().zip(text.bytes().next_back()) else { return false };
    if !is_alphanumeric(first) || !is_alphanumeric(last) {
        return false;
    }
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";

    #[test]
    fn names_are_normalised_and_made_familiar() {
        let at_digest = format!("busybox@sha256:{HEX}");
        let both = format!("busybox:1@sha256:{HEX}");
        let (full_digest, full_both) =
            (format!("docker.io/library/{at_digest}"), format!("docker.io/library/{both}"));
        let cases = [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("moby/buildkit:master", "docker.io/moby/buildkit:master", "moby/buildkit:master"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("ghcr.io/a/b-c_d__e.f", "ghcr.io/a/b-c_d__e.f", "ghcr.io/a/b-c_d__e.f"),
            ("Example/a", "Example/a", "Example/a"),
            ("a--b", "docker.io/library/a--b", "a--b"),
            (&at_digest, &full_digest, &at_digest),
            (&both, &full_both, &both),
        ];
        for (input, full, familiar) in cases {
            let parsed = Reference::parse(input).unwrap();
            assert_eq!(parsed.to_string(), full);
            assert_eq!(parsed.familiar(), familiar);
            assert_eq!(Reference::parse(full).unwrap(), parsed, "{full}");
            assert_eq!(Reference::parse(familiar).unwrap(), parsed, "{familiar}");
        }
    }

    #[test]
    fn identifiers() {
        let digest = format!("sha256:{HEX}");
        for (input, expected) in [("a", "latest"), ("a:1", "1"), (&format!("a:1@{digest}"), digest.as_str())]
        {
            assert_eq!(Reference::parse(input).unwrap().identifier(), expected);
        }
        assert_eq!(Reference::parse("a").unwrap().with_default_tag().tag(), Some("latest"));
        assert!(Reference::parse("a").unwrap().with_tag("../x").is_err());
    }

    #[test]
    fn malformed_names_are_refused() {
        let long_tag = format!("a:{}", "t".repeat(129));
        let long_path = format!("a.b/{}", "p".repeat(256));
        let cases = [
            ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
            ("localhost/UP:Tag", "invalid reference format: repository name (UP) must be lowercase"),
            ("", "invalid reference format: ``: malformed repository name"),
            ("a b", "invalid reference format: `a b`: malformed repository name"),
            ("-a", "invalid reference format: `-a`: malformed repository name"),
            ("a..b", "invalid reference format: `a..b`: malformed repository name"),
            ("a___b", "invalid reference format: `a___b`: malformed repository name"),
            ("../a", "invalid reference format: `../a`: malformed registry name"),
            ("a:", "invalid reference format: `a:`: malformed tag"),
            ("a:-x", "invalid reference format: `a:-x`: malformed tag"),
            ("a.b:x/c", "invalid reference format: `a.b:x/c`: malformed registry name"),
            ("http://a/b", "invalid reference format: `http://a/b`: malformed registry name"),
            (
                "a@sha256:12",
                "invalid reference format: `a@sha256:12`: the digest is not `sha256:` and 64 hexadecimal digits",
            ),
            (
                HEX,
                "invalid reference format: `7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa`: 64 hexadecimal digits are an image ID, not a name",
            ),
        ];
        for (input, expected) in cases {
            assert_eq!(Reference::parse(input).unwrap_err().to_string(), expected);
        }
        assert!(Reference::parse(&long_tag).is_err() && Reference::parse(&long_path).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,80}") {
            if let Ok(parsed) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&parsed.to_string()).unwrap(), parsed);
            }
        }

        #[test]
        fn full_and_familiar_round_trip(text in "([a-z]{1,5}(\\.[a-z]{1,3})?(:[0-9]{1,4})?/)?[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,2}(:[a-zA-Z0-9_]{1,5})?") {
            let parsed = Reference::parse(&text).unwrap();
            prop_assert_eq!(&Reference::parse(&parsed.to_string()).unwrap(), &parsed);
            prop_assert_eq!(&Reference::parse(&parsed.familiar()).unwrap(), &parsed);
        }
    }
}
