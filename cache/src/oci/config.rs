//! The image config: how to run an image, and what its layers are.
//!
//! Source: OCI image specification 1.1, `config.md`, with Docker's additions (`Healthcheck`, `OnBuild`,
//! `Shell`, `ArgsEscaped`) typed and everything else kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use solver::Digest;

use super::lossless::null_is_default;
use super::{CONFIG_LIMIT, Error, Platform};

/// The document that an image ID is the digest of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMetadata {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What it is for.
    #[serde(flatten)]
    pub platform: Platform,
    /// How to run it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ImageConfig,
    /// The layers' diff IDs, lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// How each layer came to be, and the steps that made none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// Fields not known here, such as `moby.buildkit.cache.v0`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ImageMetadata {
    /// Parses an image config.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`CONFIG_LIMIT`], [`Error::Json`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() as u64 > CONFIG_LIMIT {
            return Err(Error::TooLarge { what: "image config", limit: CONFIG_LIMIT });
        }
        serde_json::from_slice(bytes).map_err(|source| Error::Json { what: "image config", source })
    }

    /// The JSON text, without blanks. Equal values give equal bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an image config has string keys only")
    }
}

/// How to run an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageConfig {
    /// `user[:group]`, names or numbers.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub user: String,
    /// Ports as `80/tcp`, each with an empty object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// The environment as `NAME=value`, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The arguments that are always there.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// The arguments that a caller replaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Mount points, each with an empty object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, Value>,
    /// The directory to start in.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Labels, sorted by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Whether `Cmd` was a shell command (Windows).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args_escaped: Option<bool>,
    /// How to see whether it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for the images built on this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    /// The shell of shell-form commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub shell: Vec<String>,
    /// Fields not known here, such as `Hostname`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Docker's health check. Durations are in nanoseconds; 0 or absent means the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// Empty: inherit; `["NONE"]`: off; `["CMD", args…]`; `["CMD-SHELL", command]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Between two checks, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    /// For one check, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Time to start in, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<i64>,
    /// Between two checks while starting, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<i64>,
    /// Failures in a row that make it unwell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The layers of an image, by the digests of their plain tars.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Diff IDs, lowest layer first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One step in the making of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark, `buildkit.dockerfile.v0` on our steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_fields_and_unknown_ones_survive() {
        let text = concat!(
            r#"{"created":"2024-01-01T00:00:00Z","architecture":"arm","os":"linux","os.version":"1","#,
            r#""os.features":["f"],"variant":"v7","config":{"ExposedPorts":{"80/tcp":{}},"#,
            r#""Env":["PATH=/bin"],"Cmd":["/bin/sh"],"Labels":{"a":"1","b":"2"},"StopSignal":"SIGQUIT","ArgsEscaped":true,"#,
            r#""Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":5000000000,"Retries":3,"New":1},"OnBuild":["RUN x"],"#,
            r#""Shell":["/bin/bash","-c"],"Hostname":"h","NetworkDisabled":true},"rootfs":{"type":"layers","diff_ids":[]},"#,
            r#""history":[{"created_by":"RUN x","empty_layer":true}],"container":"abc","moby.buildkit.cache.v0":"eyJ"}"#,
        );
        let parsed = ImageMetadata::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(parsed.to_json()).unwrap(), text);
    }

    #[test]
    fn nulls_are_empty() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":null,"Labels":null,"Volumes":null,"OnBuild":null},"history":null,"rootfs":{"type":"layers","diff_ids":null}}"#;
        let parsed = ImageMetadata::parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.config, ImageConfig::default());
        assert!(parsed.rootfs.diff_ids.is_empty());
    }

    #[test]
    fn foreign_diff_ids_are_refused() {
        let text = r#"{"rootfs":{"type":"layers","diff_ids":["sha256:../x"]}}"#;
        assert!(ImageMetadata::parse(text.as_bytes()).is_err());
    }
}
