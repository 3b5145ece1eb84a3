//! Image references: `NAME[:TAG][@DIGEST]`, with Docker Hub's short forms (`distribution/reference`).

use std::fmt;

use thiserror::Error;

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// Upper-case letters in the repository's name.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// 64 hexadecimal digits could be an image ID.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// The name is longer than 255 bytes.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
}

/// A reference with its registry spelled out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Registry and repository, such as `docker.io/library/alpine`.
    pub name: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest, with its algorithm.
    pub digest: Option<String>,
}

impl Reference {
    /// Parses a reference as users write it; `alpine` becomes `docker.io/library/alpine`.
    ///
    /// # Errors
    /// Names and tags that the grammar does not allow.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::Identifier(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let repository = remainder.split(':').next().unwrap_or("");
        if repository.to_lowercase() != repository {
            return Err(ReferenceError::Uppercase(repository.to_owned()));
        }
        Self::parse_full(&format!("{domain}/{remainder}"))
    }

    /// Parses a reference whose name is complete already.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_full(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let path_start = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[path_start..].rfind(':') {
            Some(at) => (&rest[..path_start + at], Some(&rest[path_start + at + 1..])),
            None => (rest, None),
        };
        let tag_fits = tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
        if !tag_fits || !is_name(name) {
            return Err(ReferenceError::Format);
        }
        if name.len() > 255 {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { name: name.to_owned(), tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) })
    }

    /// With the tag `latest` where there is neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// With another digest.
    #[must_use]
    pub fn with_digest(mut self, digest: &str) -> Self {
        self.digest = Some(digest.to_owned());
        self
    }

    /// As users write it: Docker Hub's registry and its `library` left out.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(path) => path.strip_prefix("library/").unwrap_or(path).to_owned(),
            None => full,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// The registry and what follows it, with Docker Hub's defaults.
fn split_domain(text: &str) -> (&str, String) {
    let split = text.split_once('/').filter(|(first, _)| {
        first.contains(['.', ':']) || *first == "localhost" || first.to_lowercase() != **first
    });
    let (domain, remainder) = split.unwrap_or(("docker.io", text));
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    if domain == "docker.io" && !remainder.contains('/') {
        return (domain, format!("library/{remainder}"));
    }
    (domain, remainder.to_owned())
}

fn is_name(name: &str) -> bool {
    let Some((domain, path)) = name.split_once('/') else { return is_component(name) };
    let components = |path: &str| path.split('/').all(is_component);
    (is_domain(domain) && components(path)) || components(name)
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends =
        bytes.first().copied().is_some_and(alphanumeric) && bytes.last().copied().is_some_and(alphanumeric);
    ends && part
        .split(|ch: char| alphanumeric(u8::try_from(ch).unwrap_or(0)))
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rfind(':') {
        Some(at) if !domain.ends_with(']') => (&domain[..at], Some(&domain[at + 1..])),
        _ => (domain, None),
    };
    let port_fits = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    port_fits
        && match address {
            Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
            None => host.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            }),
        }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalizes() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("host:5000/a/b:t", "host:5000/a/b:t", "host:5000/a/b:t"),
            ("index.docker.io/x", "docker.io/library/x:latest", "x:latest"),
            ("[::1]:80/x", "[::1]:80/x:latest", "[::1]:80/x:latest"),
            ("my_host.x/foo", "my_host.x/foo:latest", "my_host.x/foo:latest"),
            (&format!("a@{digest}"), &format!("docker.io/library/a@{digest}"), &format!("a@{digest}")),
            (&format!("a:1@{digest}"), &format!("docker.io/library/a:1@{digest}"), &format!("a:1@{digest}")),
        ] {
            let reference = Reference::parse(text).unwrap().or_latest();
            assert_eq!(
                (reference.to_string().as_str(), reference.familiar().as_str()),
                (full, familiar),
                "{text}"
            );
        }
    }

    #[test]
    fn rejects() {
        for text in [
            "",
            "a:",
            ":a",
            "a b",
            "a//b",
            "-a",
            "a-",
            "a@sha256:12",
            "a..b",
            "a___b",
            "Alpine",
            "h.x/Up",
            "a/b:",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
        assert_eq!(Reference::parse("BUG_x"), Err(ReferenceError::Uppercase("library/BUG_x".into())));
    }
}
