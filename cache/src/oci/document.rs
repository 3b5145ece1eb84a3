//! Telling manifests from indexes, strictly.
//!
//! A document that could be read either way would let one digest name two images, so it is refused
//! (CVE-2021-41190): nothing may have both `manifests` and `layers`, and the media type it was
//! sent as must be the one that it states.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Error, Index, Manifest, media_type};

/// The largest manifest or index that is read, in bytes. Registries refuse larger ones; memory is bounded by it.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// The largest image config that is read, in bytes.
pub const CONFIG_LIMIT: u64 = 8 << 20;

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Several images.
    Index(Box<Index>),
}

impl Document {
    /// Parses a document that was sent as `sent_as`: a Content-Type, or the media type of a descriptor.
    ///
    /// Generic types (`application/json`, `text/plain`, none) claim nothing; then the document's own
    /// `mediaType` or its shape decides.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] and [`Error::MediaTypeMismatch`] for confusing documents,
    /// [`Error::Unsupported`] for schema 1 and other kinds, [`Error::Json`], [`Error::TooLarge`].
    pub fn parse(bytes: &[u8], sent_as: Option<&str>) -> Result<Self, Error> {
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(Error::TooLarge { what: "manifest", limit: MANIFEST_LIMIT });
        }
        let fields: Map<String, Value> = json("manifest", bytes)?;
        let shape = Shape::of(&fields)?;
        let stated = fields.get("mediaType").and_then(Value::as_str).filter(|text| !text.is_empty());
        let sent = sent_as.map(essence).filter(|text| !is_generic(text));
        if let (Some(sent), Some(stated)) = (&sent, stated)
            && sent != stated
        {
            return Err(Error::MediaTypeMismatch { sent: sent.clone(), stated: stated.to_owned() });
        }
        match (stated.or(sent.as_deref()), shape) {
            (Some(kind), Shape::Index) if media_type::is_index(kind) => {
                Ok(Self::Index(Box::new(json("index", bytes)?)))
            }
            (Some(kind), Shape::Manifest) if media_type::is_manifest(kind) => {
                Ok(Self::Manifest(Box::new(json("manifest", bytes)?)))
            }
            (None, Shape::Index) => Ok(Self::Index(Box::new(json("index", bytes)?))),
            (None, Shape::Manifest) => Ok(Self::Manifest(Box::new(json("manifest", bytes)?))),
            (Some(kind), shape) if media_type::is_index(kind) || media_type::is_manifest(kind) => {
                Err(Error::MediaTypeMismatch { sent: kind.to_owned(), stated: shape.name().to_owned() })
            }
            (Some(kind), _) => Err(Error::Unsupported { reason: format!("media type `{kind}`") }),
        }
    }

    /// The media type to store and send the document as.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(manifest) => manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST),
            Self::Index(index) => index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX),
        }
    }
}

/// What the fields of a document make it.
#[derive(Clone, Copy)]
enum Shape {
    Manifest,
    Index,
}

impl Shape {
    fn of(fields: &Map<String, Value>) -> Result<Self, Error> {
        // Go's decoder ignores case, so `Layers` is `layers` to other tools.
        let find =
            |name: &str| fields.iter().any(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null());
        let manifest_field = ["layers", "config", "fsLayers"].into_iter().find(|name| find(name));
        match (find("manifests"), manifest_field) {
            (true, Some(second)) => Err(Error::Ambiguous { first: "manifests", second }),
            (true, None) => Ok(Self::Index),
            (false, _) if find("fsLayers") || fields.get("schemaVersion").is_some_and(|v| *v == 1) => {
                Err(Error::Unsupported { reason: "schema 1 manifests are obsolete".to_owned() })
            }
            (false, Some(_)) => Ok(Self::Manifest),
            (false, None) => {
                Err(Error::Unsupported { reason: "neither `manifests` nor `config` and `layers`".to_owned() })
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Manifest => "an image manifest",
            Self::Index => "an image index",
        }
    }
}

/// The media type without parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_generic(media_type: &str) -> bool {
    matches!(media_type, "" | "application/json" | "application/octet-stream" | "text/plain" | "text/json")
}

fn json<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn outcome(text: &str, sent_as: Option<&str>) -> String {
        let text = text.replace("$D", &format!(r#"{{"mediaType":"x","digest":"{EMPTY}","size":0}}"#));
        match Document::parse(text.as_bytes(), sent_as) {
            Ok(Document::Manifest(_)) => "manifest".to_owned(),
            Ok(Document::Index(_)) => "index".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn documents_are_what_they_say() {
        let manifest = r#"{"schemaVersion":2,"config":$D,"layers":[]}"#;
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let stated = |text: &str, kind: &str| text.replacen('{', &format!(r#"{{"mediaType":"{kind}","#), 1);
        let cases = [
            (manifest.to_owned(), None, "manifest"),
            (index.to_owned(), None, "index"),
            (manifest.to_owned(), Some(media_type::OCI_MANIFEST), "manifest"),
            (manifest.to_owned(), Some("application/json; charset=utf-8"), "manifest"),
            (stated(manifest, media_type::DOCKER_MANIFEST), Some(media_type::DOCKER_MANIFEST), "manifest"),
            (stated(index, media_type::DOCKER_INDEX), Some("text/plain"), "index"),
            (
                index.to_owned(),
                Some(media_type::OCI_MANIFEST),
                "manifest was sent as `application/vnd.oci.image.manifest.v1+json` but says that it is `an image index`",
            ),
            (
                stated(manifest, media_type::OCI_MANIFEST),
                Some(media_type::DOCKER_MANIFEST),
                "manifest was sent as `application/vnd.docker.distribution.manifest.v2+json` but says that it is `application/vnd.oci.image.manifest.v1+json`",
            ),
            (
                r#"{"schemaVersion":2,"config":$D,"layers":[],"manifests":[]}"#.to_owned(),
                None,
                "ambiguous manifest: it has both `manifests` and `layers`",
            ),
            (
                r#"{"schemaVersion":2,"Layers":[],"manifests":[]}"#.to_owned(),
                Some(media_type::OCI_INDEX),
                "ambiguous manifest: it has both `manifests` and `layers`",
            ),
            (
                r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
                None,
                "unsupported manifest: schema 1 manifests are obsolete",
            ),
            ("{}".to_owned(), None, "unsupported manifest: neither `manifests` nor `config` and `layers`"),
            (manifest.to_owned(), Some("text/html"), "unsupported manifest: media type `text/html`"),
            ("[]".to_owned(), None, "malformed manifest"),
            (r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#.to_owned(), None, "malformed index"),
        ];
        for (text, sent_as, expected) in cases {
            assert_eq!(outcome(&text, sent_as), expected, "{text} as {sent_as:?}");
        }
    }

    #[test]
    fn size_is_bounded() {
        let huge = vec![b' '; MANIFEST_LIMIT as usize + 1];
        assert!(matches!(Document::parse(&huge, None), Err(Error::TooLarge { .. })));
    }
}
