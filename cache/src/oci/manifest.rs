//! The manifest of one image and the index of several.
//!
//! Source: OCI image specification 1.1, `manifest.md` and `image-index.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lossless::null_is_default;
use super::{Descriptor, Platform, PlatformMatcher, media_type};

/// The manifest of one image, OCI or Docker schema 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own media type; OCI allows leaving it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations, sorted by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Manifest {
    /// An OCI manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            extra: Map::new(),
        }
    }

    /// The JSON text, indented by two blanks as BuildKit writes manifests.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a manifest has string keys only")
    }
}

/// A list of manifests, one per platform: OCI index or Docker manifest list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The index's own media type; OCI allows leaving it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests, or further indexes.
    #[serde(deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations, sorted by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Index {
    /// An OCI index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            extra: Map::new(),
        }
    }

    /// The JSON text, indented by two blanks as BuildKit writes indexes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("an index has string keys only")
    }

    /// The manifest that suits `platform` best; the first one of equals.
    ///
    /// Attestations never match. Entries without a platform are taken only where no other one suits.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let matcher = PlatformMatcher::new(platform);
        let images = || self.manifests.iter().filter(|entry| !entry.is_attestation());
        images()
            .filter_map(|entry| Some((matcher.rank(entry.platform.as_ref()?)?, entry)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
            .or_else(|| images().find(|entry| entry.platform.is_none()))
    }

    /// The platforms that the index offers, as text, for messages.
    pub fn platforms(&self) -> Vec<String> {
        let images = self.manifests.iter().filter(|entry| !entry.is_attestation());
        images.filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use solver::Digest;

    fn index(platforms: &[&str]) -> Index {
        let entry = |(number, text): (usize, &&str)| {
            let mut descriptor = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(&[number as u8]), 1);
            match *text {
                "-" => {}
                "attestation" => {
                    descriptor.platform = Some(Platform {
                        os: "unknown".into(),
                        architecture: "unknown".into(),
                        ..Platform::default()
                    });
                    descriptor
                        .annotations
                        .insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
                }
                text => {
                    let mut parts = text.split('/').map(str::to_owned);
                    descriptor.platform = Some(Platform {
                        os: parts.next().unwrap(),
                        architecture: parts.next().unwrap(),
                        variant: parts.next(),
                        ..Platform::default()
                    });
                }
            }
            descriptor
        };
        Index::new(platforms.iter().enumerate().map(entry).collect())
    }

    #[test]
    fn the_best_platform_is_selected() {
        let cases: &[(&[&str], &str, Option<usize>)] = &[
            (&["linux/amd64", "linux/arm64"], "linux/arm64", Some(1)),
            (&["linux/arm64/v8", "linux/amd64"], "linux/arm64", Some(0)),
            (&["linux/386", "linux/amd64"], "linux/amd64", Some(1)),
            (&["linux/386"], "linux/amd64", Some(0)),
            (&["linux/amd64"], "linux/386", None),
            (&["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm", Some(1)),
            (&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", Some(1)),
            (&["linux/arm/v7"], "linux/arm/v6", None),
            (&["linux/amd64/v3", "linux/amd64", "linux/amd64/v2"], "linux/amd64/v2", Some(2)),
            (&["linux/amd64/v3"], "linux/amd64", None),
            (&["windows/amd64"], "linux/amd64", None),
            (&["attestation", "linux/amd64"], "linux/amd64", Some(1)),
            (&["-"], "linux/amd64", Some(0)),
            (&["-", "linux/amd64"], "linux/amd64", Some(1)),
            (&["linux/x86_64"], "linux/amd64", Some(0)),
            (&["linux/amd64", "linux/amd64"], "linux/amd64", Some(0)),
            (&[], "linux/amd64", None),
        ];
        for (offered, wanted, expected) in cases {
            let index = index(offered);
            let chosen = index.select(&wanted.parse().unwrap());
            let position = chosen.map(|chosen| index.manifests.iter().position(|m| m == chosen).unwrap());
            assert_eq!(position, *expected, "{wanted} out of {offered:?}");
        }
    }
}
