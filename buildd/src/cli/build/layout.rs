//! `oci-layout://PATH[:TAG][@DIGEST]`: an image of an OCI layout on this machine.

use std::fmt;

use solver::Digest;

const SCHEME: &str = "oci-layout://";
/// The longest tag (OCI distribution specification 1.1).
const MAX_TAG: usize = 128;

/// An image of a layout, as `--build-context` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayoutName {
    /// The directory; for the daemon, the id of the store.
    pub(super) path: String,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<Digest>,
}

impl LayoutName {
    /// Reads a value; `None` when it has another scheme. Without tag and digest it means `latest`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut path = text.strip_prefix(SCHEME)?;
        let mut digest = None;
        if let Some((before, after)) = path.rsplit_once('@')
            && let Ok(parsed) = after.parse()
        {
            (path, digest) = (before, Some(parsed));
        }
        let mut tag = None;
        if let Some((before, after)) = path.rsplit_once(':')
            && is_tag(after)
        {
            (path, tag) = (before, Some(after.to_owned()));
        }
        if tag.is_none() && digest.is_none() {
            tag = Some("latest".to_owned());
        }
        Some(Self { path: path.to_owned(), tag, digest })
    }
}

impl fmt::Display for LayoutName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= MAX_TAG && text.starts_with(word) && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        for (text, path, tag, has_digest) in [
            ("a/b".to_owned(), "a/b", Some("latest"), false),
            ("/a:v1.0".to_owned(), "/a", Some("v1.0"), false),
            (format!("/a@{digest}"), "/a", None, true),
            (format!("./a:x@{digest}"), "./a", Some("x"), true),
            ("/a@b/c".to_owned(), "/a@b/c", Some("latest"), false),
            ("/a:1/c".to_owned(), "/a:1/c", Some("latest"), false),
        ] {
            let name = LayoutName::parse(&format!("{SCHEME}{text}")).unwrap();
            assert_eq!((name.path.as_str(), name.tag.as_deref()), (path, tag), "{text}");
            assert_eq!(name.digest.map(|d| d.to_string()), has_digest.then(|| digest.clone()), "{text}");
            let again = name.to_string();
            assert_eq!(LayoutName::parse(&again), Some(name), "{again}");
        }
        assert_eq!(LayoutName::parse("docker-image://x"), None);
    }
}
