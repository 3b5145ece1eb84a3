//! The document that describes a cache: `application/vnd.buildkit.cacheconfig.v0`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use solver::Digest;

use super::manifest::{CREATED, UNCOMPRESSED};
use crate::oci::Descriptor;

/// A cache: layers, and records that point to each other and to layers by index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheConfig {
    /// The layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<ConfigLayer>,
    /// The keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<ConfigRecord>,
}

/// A layer on those below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigLayer {
    /// The blob.
    pub blob: Digest,
    /// Index of the layer below; -1 for none. Left out for 0, as Go leaves zeros out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parent: i64,
    /// What a manifest would say of the blob, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<LayerAnnotations>,
}

/// A layer's description in a config that stands alone, as object stores have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerAnnotations {
    /// The blob's media type.
    #[serde(rename = "mediaType", default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Digest of the plain tar.
    #[serde(rename = "diffID", default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// The blob's length, in bytes.
    #[serde(default, skip_serializing_if = "is_none")]
    pub size: u64,
    /// RFC 3339; [`NO_TIME`] where it is not known.
    #[serde(rename = "createdAt", default)]
    pub created_at: String,
}

/// How Go writes a time that was never set.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

impl CacheConfig {
    /// The layers as the config itself describes them.
    ///
    /// # Errors
    /// A layer without description or diff ID.
    pub fn described(&self) -> Result<BTreeMap<Digest, Descriptor>, ConfigError> {
        let one = |layer: &ConfigLayer| {
            let undescribed = || ConfigError::Undescribed(layer.blob);
            let told = layer.annotations.as_ref().ok_or_else(undescribed)?;
            let diff_id = told.diff_id.ok_or_else(undescribed)?;
            let mut descriptor = Descriptor::new(told.media_type.clone(), layer.blob, told.size);
            descriptor.annotations.insert(UNCOMPRESSED.to_owned(), diff_id.to_string());
            if !matches!(told.created_at.as_str(), "" | NO_TIME) {
                descriptor.annotations.insert(CREATED.to_owned(), told.created_at.clone());
            }
            Ok((layer.blob, descriptor))
        };
        self.layers.iter().map(one).collect()
    }

    /// Describes the layers within the config.
    ///
    /// # Errors
    /// A layer that `layers` has no diff ID of.
    pub fn describe(&mut self, layers: &[Descriptor]) -> Result<(), ConfigError> {
        let known: BTreeMap<Digest, &Descriptor> = layers.iter().map(|layer| (layer.digest, layer)).collect();
        for layer in &mut self.layers {
            let undescribed = || ConfigError::Undescribed(layer.blob);
            let told = known.get(&layer.blob).ok_or_else(undescribed)?;
            let diff_id = told.annotations.get(UNCOMPRESSED).and_then(|text| text.parse().ok());
            layer.annotations = Some(LayerAnnotations {
                media_type: told.media_type.clone(),
                diff_id: Some(diff_id.ok_or_else(undescribed)?),
                size: told.size,
                created_at: told.annotations.get(CREATED).map_or(NO_TIME, String::as_str).to_owned(),
            });
        }
        Ok(())
    }
}

/// A key, how it follows from other keys, and what it gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRecord {
    /// Results that end in a layer and hold all below it.
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<ConfigResult>,
    /// Results that name each of their layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<ConfigChain>,
    /// The key of the operation by itself, with its output.
    pub digest: Option<Digest>,
    /// By input of the operation: the records that it may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<ConfigInput>>,
}

/// A result by its topmost layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigResult {
    /// Index of the topmost layer.
    pub layer: i64,
    /// RFC 3339.
    #[serde(rename = "createdAt", default)]
    pub created_at: String,
}

/// A result by all its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChain {
    /// Indexes, lowest first.
    pub layers: Vec<i64>,
    /// RFC 3339.
    #[serde(rename = "createdAt", default)]
    pub created_at: String,
}

/// One of the records that an input may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigInput {
    /// Which part of it is used; empty is all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Index of the record.
    pub link: i64,
}

/// A config that means nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or not of this form.
    #[error("malformed cache config")]
    Json(#[from] serde_json::Error),
    /// An index that leads nowhere.
    #[error("the cache config has no {what} {index}")]
    Index {
        /// Of what.
        what: &'static str,
        /// The index.
        index: i64,
    },
    /// Records or layers that are their own inputs.
    #[error("{what} {index} of the cache config leads to itself")]
    Loop {
        /// Of what.
        what: &'static str,
        /// Where the loop was found.
        index: i64,
    },
    /// A record without a digest, or with an input that nothing satisfies.
    #[error("record {0} of the cache config is incomplete")]
    Incomplete(usize),
    /// Nothing tells what a layer is.
    #[error("cache layer `{0}` with missing annotations")]
    Undescribed(Digest),
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

fn is_none(n: &u64) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_described_within() {
        let (blob, diff_id) = (Digest::of(b"blob"), Digest::of(b"tar"));
        // As BuildKit's S3 exporter writes it.
        let json = format!(
            r#"{{"layers":[{{"blob":"{blob}","parent":-1,"annotations":{{"mediaType":"t","diffID":"{diff_id}","size":7,"createdAt":"2026-01-02T03:04:05.678Z"}}}}]}}"#
        );
        let config: CacheConfig = serde_json::from_str(&json).unwrap();
        let layers = config.described().unwrap();
        let layer = &layers[&blob];
        assert_eq!((layer.media_type.as_str(), layer.size), ("t", 7));
        assert_eq!(layer.annotations[UNCOMPRESSED], diff_id.to_string());
        assert_eq!(layer.annotations[CREATED], "2026-01-02T03:04:05.678Z");
        let mut again = config.clone();
        again.layers[0].annotations = None;
        assert_eq!(
            again.described().unwrap_err().to_string(),
            format!("cache layer `{blob}` with missing annotations")
        );
        assert!(again.describe(&[]).is_err());
        again.describe(&layers.into_values().collect::<Vec<_>>()).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), json);
        // Never set.
        let json = json.replace("2026-01-02T03:04:05.678Z", NO_TIME);
        let config: CacheConfig = serde_json::from_str(&json).unwrap();
        assert!(!config.described().unwrap()[&blob].annotations.contains_key(CREATED));
    }
}
