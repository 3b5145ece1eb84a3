//! The descriptor: a digest with size and media type.
//!
//! Source: OCI image specification 1.1, `descriptor.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use solver::Digest;

use super::lossless::null_is_default;
use super::{Platform, media_type};

/// Names a blob. A digest of another algorithm than SHA-256 does not parse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// The digest of the blob's bytes.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// Where a foreign layer can be fetched. Credentials never go there.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub urls: Vec<String>,
    /// Free annotations, sorted by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// The blob itself in base64, never trusted over the blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Which platform the image is for, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Descriptor {
    /// The annotation that says which manifest an attestation is about.
    pub const ABOUT: &str = "vnd.docker.reference.digest";

    /// A descriptor without annotations or platform.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
            extra: Map::new(),
        }
    }

    /// The descriptor of `bytes`.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Whether it names a list of manifests.
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.media_type)
    }

    /// Whether it is BuildKit's attestation manifest of another image, which is no image to run.
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
    }

    /// The manifest that this one holds statements about; `None` where it holds none.
    pub fn about(&self) -> Option<Digest> {
        let about = || self.annotations.get(Self::ABOUT)?.parse().ok();
        if self.is_attestation() { about() } else { None }
    }

    /// Whether it is a manifest of statements about `manifest`.
    pub fn is_about(&self, manifest: &Digest) -> bool {
        self.about() == Some(*manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_survive() {
        let text = r#"{"mediaType":"a/b","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"platform":{"architecture":"amd64","os":"linux"},"x-new":[1,{"b":1,"a":2}]}"#;
        let parsed: Descriptor = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), text);
    }

    #[test]
    fn only_sha256_and_unsigned_sizes_parse() {
        let hex = "0".repeat(64);
        for bad in [
            format!(r#"{{"mediaType":"a","digest":"sha512:{hex}{hex}","size":1}}"#),
            r#"{"mediaType":"a","digest":"sha256:../../etc/passwd","size":1}"#.to_owned(),
            format!(r#"{{"mediaType":"a","digest":"sha256:{hex}","size":-1}}"#),
            format!(r#"{{"mediaType":"a","digest":"md5:{hex}","size":1}}"#),
            format!(r#"{{"mediaType":"a","digest":"sha256:{hex}","digest":"sha256:{hex}","size":1}}"#),
        ] {
            assert!(serde_json::from_str::<Descriptor>(&bad).is_err(), "{bad}");
        }
    }
}
